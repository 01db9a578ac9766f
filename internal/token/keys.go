package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// KeySet holds the signing keys of one issuer. It asks the issuer only when a token
// makes it necessary, one request at a time, and keeps the last good keys when the
// answer is none. It is safe for concurrent use; known keys are found without lock.
//
// Tokens cannot make it ask often: an unknown key id leads to one fetch per
// Cooldown, whoever sent it, and a bad signature under a known id to none.
type KeySet struct {
	cfg    KeySetConfig
	source *source
	life   context.Context // ends with Close; parent of fetches, which outlive requests
	end    context.CancelFunc
	work   sync.WaitGroup

	current atomic.Pointer[fetchedKeys]
	gone    atomic.Bool // the realm has been deleted: current serves no more

	mu        sync.Mutex
	flight    *flight
	failures  int       // fetches failed in a row
	missing   int       // of these, the last ones that found no such realm
	lastErr   error     // of the last fetch
	retryAt   time.Time // while failing: when to ask again
	missedAt  time.Time // when an unknown id was last asked for in vain
	absent    map[string]time.Time
	wasClosed bool
}

// asking is on whose behalf an issuer is asked.
type asking struct {
	observer Observer    // may be nil
	first    func() bool // has to allow the fetch that is to bring the first keys; nil does
}

type fetchedKeys struct {
	*keys
	at time.Time // when the fetch began: what the issuer changed later is not in it
}

// flight is one fetch, awaited by any number of requests.
type flight struct {
	done    chan struct{}
	err     error // once done
	waiting int   // requests that wait for an unknown id; under KeySet.mu
}

var (
	errClosed  = errors.New("the key set is closed")
	errCrowded = errors.New("too many requests wait for the issuer's answer")
)

// NewKeySet returns a key set that has no keys yet. It does no network I/O.
func NewKeySet(cfg KeySetConfig) (*KeySet, error) {
	for name, d := range map[string]time.Duration{
		"cooldown": cfg.Cooldown, "refresh": cfg.Refresh, "max stale": cfg.MaxStale, "timeout": cfg.Timeout,
	} {
		if d < 0 {
			return nil, fmt.Errorf("%s: negative", name)
		}
	}
	src, err := newSource(cfg)
	if err != nil {
		return nil, err
	}
	cfg.Cooldown = cmp.Or(cfg.Cooldown, 30*time.Second)
	cfg.Refresh = cmp.Or(cfg.Refresh, 5*time.Minute)
	cfg.MaxStale = cmp.Or(cfg.MaxStale, 24*time.Hour)
	cfg.Timeout = cmp.Or(cfg.Timeout, 5*time.Second)
	if cfg.MaxStale < cfg.Refresh {
		return nil, errors.New("max stale: shorter than refresh")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	ks := &KeySet{cfg: cfg, source: src, absent: make(map[string]time.Time)}
	ks.life, ks.end = context.WithCancel(context.Background())
	return ks, nil
}

// Issuer returns whose keys these are.
func (ks *KeySet) Issuer() string { return ks.cfg.Issuer }

// proven reports whether the issuer ever gave keys, and has not been deleted since.
func (ks *KeySet) proven() bool { return ks.current.Load() != nil && !ks.gone.Load() }

// Close ends a fetch that is under way, and lets no other begin. Keys that are known
// go on serving, since requests may be in flight.
func (ks *KeySet) Close() {
	ks.mu.Lock()
	ks.wasClosed = true
	ks.mu.Unlock()
	ks.end()
	ks.work.Wait()
}

// key returns the issuer's key of that id for that algorithm.
func (ks *KeySet) key(ctx context.Context, id, algorithm string, ask asking) (*key, error) {
	known, err := ks.fresh(ctx, ask)
	if err != nil {
		return nil, err
	}
	found, idKnown := known.find(id, algorithm)
	if !idKnown {
		if known, err = ks.askFor(ctx, id, ask); err != nil {
			return nil, err
		}
		found, idKnown = known.find(id, algorithm)
	}
	switch {
	case !idKnown:
		return nil, refuse(ReasonUnknownKey, "the issuer has no signing key of the token's kid: "+
			"the key was disabled, or the token is not of this realm")
	case found == nil:
		return nil, refuse(ReasonSignature, "the issuer's key of the token's kid is not for the token's alg")
	}
	return found, nil
}

// stillTrusted reports whether k, with which a token was verified before, is still
// the issuer's one key of its id for that algorithm.
func (ks *KeySet) stillTrusted(ctx context.Context, k *key, algorithm string, ask asking) error {
	known, err := ks.fresh(ctx, ask)
	if err == nil && known == nil { // too old by now
		known, err = ks.askFor(ctx, k.id, ask)
	}
	if err != nil {
		return err
	}
	if found, _ := known.find(k.id, algorithm); found != nil && found.fingerprint == k.fingerprint {
		return nil
	}
	return refuse(ReasonUnknownKey, "the issuer has withdrawn the key the token was signed with")
}

// serving returns the keys that may be used at now, or nil.
func (ks *KeySet) serving(now time.Time) *fetchedKeys {
	if current := ks.current.Load(); current != nil && now.Sub(current.at) <= ks.cfg.MaxStale && !ks.gone.Load() {
		return current
	}
	return nil
}

// fresh returns the keys at hand, nil if there are none. If they are due for a
// refresh it begins one. The request that began it waits for it, and not for long, if
// nobody came by for so long that the keys are older than a refresh could explain; all
// others go on with the keys at hand.
func (ks *KeySet) fresh(ctx context.Context, ask asking) (*keys, error) {
	now := ks.cfg.Now()
	current := ks.serving(now)
	if current == nil {
		return nil, nil
	}
	age := now.Sub(current.at)
	if age < ks.cfg.Refresh {
		return current.keys, nil
	}
	ks.mu.Lock()
	failing := ks.failures > 0
	f, mine := ks.fly(now, ask)
	ks.mu.Unlock()
	if f == nil || !mine || failing || age < ks.cfg.Refresh+refreshGrace {
		return current.keys, nil
	}
	patience := time.NewTimer(refreshWait)
	defer patience.Stop()
	select {
	case <-f.done:
	case <-patience.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if current = ks.serving(now); current == nil {
		return nil, nil
	}
	return current.keys, nil
}

// askFor fetches the keys because none of that id is known, if it may, and returns
// those known afterwards.
func (ks *KeySet) askFor(ctx context.Context, id string, ask asking) (*keys, error) {
	for {
		known, f, mine, err := ks.askOrKnow(id, ask)
		if f == nil {
			return known, err
		}
		err = f.wait(ctx)
		ks.mu.Lock()
		f.waiting--
		ks.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if f.err != nil {
			return nil, keysUnavailable(f.err)
		}
		known = ks.current.Load().keys
		_, idKnown := known.byID[id]
		if mine {
			ks.learn(id, idKnown)
		}
		if mine || idKnown {
			return known, nil
		}
		// The answer of a fetch that was under way may be older than the token's
		// key: once more.
	}
}

// wait returns when the fetch is done, or with ctx's error.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// askOrKnow returns a fetch to wait for, begun for id (mine) or by others, or else
// the keys to be content with.
func (ks *KeySet) askOrKnow(id string, ask asking) (known *keys, f *flight, mine bool, err error) {
	now := ks.cfg.Now()
	ks.mu.Lock()
	defer ks.mu.Unlock()

	serving := ks.serving(now)
	if serving != nil && ks.failures == 0 && !ks.wasClosed {
		_, idKnown := serving.byID[id]
		if idKnown || ks.isAbsent(id, now) || ks.flight == nil && ks.coolingDown(now) {
			return serving.keys, nil, false, nil
		}
	}
	f, mine = ks.fly(now, ask)
	if f == nil {
		return nil, nil, false, ks.unavailable()
	}
	if serving != nil {
		// Where good tokens need no answer, a crowd of bad ones must not wait for it.
		if f.waiting >= maxWaiting {
			return nil, nil, false, keysUnavailable(errCrowded)
		}
		if mine {
			ks.missedAt = now // so that nobody else asks next, unless the answer has the id
		}
	}
	f.waiting++
	return nil, f, mine, nil
}

// isAbsent reports whether the issuer said recently that it has no such key: a
// client with an outdated token must not use up what a new key needs. ks.mu is held.
func (ks *KeySet) isAbsent(id string, now time.Time) bool {
	at, ok := ks.absent[id]
	return ok && now.Sub(at) < 2*ks.cfg.Cooldown
}

// coolingDown reports whether the issuer was asked for an unknown id recently, in
// vain. ks.mu is held.
func (ks *KeySet) coolingDown(now time.Time) bool {
	return !ks.missedAt.IsZero() && now.Sub(ks.missedAt) < ks.cfg.Cooldown
}

// learn notes whether the issuer, asked for id, had it.
func (ks *KeySet) learn(id string, had bool) {
	now := ks.cfg.Now()
	ks.mu.Lock()
	defer ks.mu.Unlock()
	if had {
		ks.missedAt = time.Time{} // a new key, not an invented one: costs no cooldown
		return
	}
	for other := range ks.absent {
		if !ks.isAbsent(other, now) {
			delete(ks.absent, other)
		}
	}
	if len(ks.absent) < maxAbsent {
		ks.absent[id] = now
	}
}

// fly returns the fetch under way, or begins one (mine) unless the last one failed
// too recently, the key set is closed, or its first fetch is not allowed (nil).
// ks.mu is held.
func (ks *KeySet) fly(now time.Time, ask asking) (f *flight, mine bool) {
	switch {
	case ks.flight != nil:
		return ks.flight, false
	case ks.wasClosed, ks.failures > 0 && now.Before(ks.retryAt):
		return nil, false
	case !ks.proven() && ask.first != nil && !ask.first():
		return nil, false
	}
	f = &flight{done: make(chan struct{})}
	ks.flight = f
	ks.work.Go(func() { ks.fetch(f, now, ask.observer) })
	return f, true
}

// fetch asks the issuer on behalf of everybody who waits for f.
func (ks *KeySet) fetch(f *flight, begun time.Time, obs Observer) {
	ctx, cancel := context.WithTimeout(ks.life, ks.cfg.Timeout)
	defer cancel()
	start := time.Now()
	fetched, err := ks.fetchSafely(ctx)
	report := KeyFetch{Issuer: ks.cfg.Issuer, Duration: time.Since(start), Err: err}

	ks.mu.Lock()
	ks.flight = nil
	f.err, ks.lastErr = err, err
	if err == nil {
		report.Keys, report.Skipped, report.Changed = fetched.usable, fetched.skipped, ks.failures > 0
		ks.failures, ks.missing = 0, 0
		ks.current.Store(&fetchedKeys{keys: fetched, at: begun})
		ks.gone.Store(false) // last, or the keys before would serve once more
	} else {
		report.Changed = ks.failures == 0
		ks.failures++
		if ks.missing++; !errors.Is(err, ErrNoRealm) {
			ks.missing = 0
		}
		// Once could be a mistake, of a Keycloak whose database is being restored, say.
		if ks.missing >= goneAfter {
			ks.gone.Store(true)
		}
		ks.retryAt = ks.cfg.Now().Add(min(firstBackoff<<min(ks.failures-1, 10), lastBackoff))
		ks.missedAt = time.Time{} // nothing was learnt about any id
	}
	closed := ks.wasClosed
	close(f.done)
	ks.mu.Unlock()

	if obs != nil && !closed {
		obs.KeysFetched(report)
	}
}

// fetchSafely keeps a panic, in a transport of the caller's say, from ending the
// process: nobody above this goroutine would recover it.
func (ks *KeySet) fetchSafely(ctx context.Context) (fetched *keys, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %T", p)
		}
	}()
	return ks.source.fetch(ctx)
}

// unavailable says why no keys can be had. ks.mu is held.
func (ks *KeySet) unavailable() error {
	switch {
	case ks.wasClosed:
		return keysUnavailable(errClosed)
	case ks.lastErr == nil: // never asked, nor allowed to
		return keysUnavailable(errBudget)
	}
	return keysUnavailable(ks.lastErr)
}

func keysUnavailable(err error) error {
	hint := "the issuer's keys cannot be fetched: see whether this server reaches the issuer"
	switch {
	case errors.Is(err, errBudget):
		hint = "the realm was not asked for its keys yet, because too many others were just before: it gets its " +
			"turn, but somebody may be making up realms. Realms that once gave keys have turns of their own; after " +
			"a start, none has yet"
	case errors.Is(err, ErrNoRealm):
		hint = "Keycloak says that it has no such realm: it was deleted or renamed, or the issuer is misspelt"
	}
	return &Error{Reason: ReasonKeysUnavailable, Hint: hint, Err: err}
}

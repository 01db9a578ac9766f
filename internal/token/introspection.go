package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Introspector asks an issuer about a token (RFC 7662).
type Introspector interface {
	// Introspect returns the issuer's answer about raw, a JSON object, as it came, or
	// [ErrInactive] if it says that the token is not active. Any other error means
	// that the issuer could not be asked; it must hold nothing of the token.
	//
	// ctx has the values of the request that was first to want to know, and [Unproven]
	// tells of it whether raw may be made up.
	Introspect(ctx context.Context, raw string) ([]byte, error)
}

// ErrInactive is an [Introspector]'s word for a token that is not active: invented,
// expired, revoked, or of a session that has ended.
var ErrInactive = errors.New("the token is not active")

// IntrospectionConfig says whom [Introspection] asks.
type IntrospectionConfig struct {
	// Issuer whose tokens can be asked about. Required.
	Issuer string

	// Introspector asks. Required.
	Introspector Introspector

	// Life is how long an answer is remembered, unless the token expires before: so
	// long may a revoked token go on working. Default: 60 s.
	Life time.Duration

	// MaxBytes of memory for answers. Default: 4 MiB.
	MaxBytes int64

	// Timeout bounds one call. Default: 5 s.
	Timeout time.Duration

	// UnprovenBurst and UnprovenPerSecond bound the questions about opaque tokens,
	// which cost who makes them up nothing. One about a good token is not counted.
	// Default: 20, and then 10 per second.
	UnprovenBurst     int
	UnprovenPerSecond float64

	// Now is the clock. Default: [time.Now].
	Now func() time.Time
}

const (
	defaultAnswersBytes = 4 << 20

	// maxCalls bounds the tokens asked about at the same time; see maxUnproven.
	maxCalls = 100
	// maxRefused bounds the tokens remembered as not to be accepted, and refusedFor is
	// for how long: enough for a client that repeats itself not to become a burden.
	maxRefused = 1000
	refusedFor = 5 * time.Second
)

// Introspection remembers what one issuer, asked as one client, said about tokens. It
// may be shared by verifiers of that issuer; but never by such that ask otherwise,
// because what an endpoint says depends on who asks. It is safe for concurrent use.
//
// A token is asked about once at a time, whoever wants to know, and not again for as
// long as the answer is remembered. Like [Seen] it holds facts: [Verifier.Check] gives
// the verdict.
type Introspection struct {
	cfg     IntrospectionConfig
	answers *Seen
	budget  *budget         // of questions about opaque tokens
	life    context.Context // ends with Close, and calls with it, which outlive requests
	end     context.CancelFunc
	work    sync.WaitGroup

	mu        sync.Mutex
	calls     map[seenID]*call
	unproven  int // of calls: those about opaque tokens
	refused   map[seenID]refused
	wasClosed bool
}

// call is one question under way, awaited by any number of requests.
type call struct {
	done chan struct{}
	tok  *Token // once done, these two
	err  error
}

// refused is why a token is not to be accepted, as of at.
type refused struct {
	why error
	at  time.Time
}

var errManyCalls = errors.New("too many tokens are being asked about")

// NewIntrospection returns an introspection that has not asked yet. It does no network
// I/O. [Introspection.Close] ends it.
func NewIntrospection(cfg IntrospectionConfig) (*Introspection, error) {
	switch {
	case cfg.Issuer == "":
		return nil, errors.New("issuer: missing")
	case cfg.Introspector == nil:
		return nil, errors.New("introspector: missing")
	case cfg.Life < 0:
		return nil, errors.New("life: negative")
	case cfg.Timeout < 0:
		return nil, errors.New("timeout: negative")
	case cfg.UnprovenBurst < 0, cfg.UnprovenPerSecond < 0:
		return nil, errors.New("budget of unproven tokens: negative")
	}
	cfg.Life = cmp.Or(cfg.Life, time.Minute)
	cfg.Timeout = cmp.Or(cfg.Timeout, 5*time.Second)
	answers, err := newSeen(SeenConfig{MaxBytes: cmp.Or(cfg.MaxBytes, defaultAnswersBytes), Now: cfg.Now}, cfg.Life)
	if err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	in := &Introspection{
		cfg: cfg, answers: answers,
		budget: newBudget(float64(cmp.Or(cfg.UnprovenBurst, 20)), cmp.Or(cfg.UnprovenPerSecond, 10)),
		calls:  make(map[seenID]*call), refused: make(map[seenID]refused),
	}
	in.life, in.end = context.WithCancel(context.Background())
	return in, nil
}

// Close ends the calls that are under way, and lets no other begin. What is remembered
// goes on serving, since requests may be in flight.
func (in *Introspection) Close() {
	in.mu.Lock()
	in.wasClosed = true
	in.mu.Unlock()
	in.end()
	in.work.Wait()
	in.answers.Close()
}

// ask returns what the issuer says about raw. If that is a token in JWT form, own is
// what it says of itself, and the answer has to agree.
func (in *Introspection) ask(ctx context.Context, raw string, own *Token) (*Token, error) {
	c, err := in.join(ctx, raw, own)
	if err != nil {
		return nil, err
	}
	select {
	case <-c.done:
		return c.tok, c.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// join returns the call about raw, begun if there is none.
func (in *Introspection) join(ctx context.Context, raw string, own *Token) (*call, error) {
	id := in.answers.digest(raw)
	in.mu.Lock()
	defer in.mu.Unlock()
	if c := in.calls[id]; c != nil {
		return c, nil
	}
	if tok := in.answers.get(id); tok != nil { // answered a moment ago
		c := &call{done: make(chan struct{}), tok: tok}
		close(c.done)
		return c, nil
	}
	if known, ok := in.refused[id]; ok && in.cfg.Now().Sub(known.at) < refusedFor {
		return nil, known.why
	}
	switch {
	case in.wasClosed:
		return nil, introspectionUnavailable(errors.New("the introspection is closed"))
	case len(in.calls) >= maxCalls:
		return nil, introspectionUnavailable(errManyCalls)
	}
	ctx = context.WithoutCancel(ctx) // others may be waiting when this request ends
	if own == nil {
		if err := in.admitUnproven(); err != nil {
			return nil, err
		}
		ctx = WithUnproven(ctx)
	}
	c := &call{done: make(chan struct{})}
	in.calls[id] = c
	in.work.Go(func() { in.run(ctx, c, id, raw, own) })
	return c, nil
}

// run asks on behalf of everybody who waits for c.
func (in *Introspection) run(ctx context.Context, c *call, id seenID, raw string, own *Token) {
	ctx, cancel := context.WithTimeout(ctx, in.cfg.Timeout)
	defer cancel()
	defer context.AfterFunc(in.life, cancel)()
	answer, err := in.askSafely(ctx, raw)
	switch {
	case errors.Is(err, ErrInactive):
		c.err = inactive()
	case err != nil:
		c.err = introspectionUnavailable(err)
	default:
		c.tok, c.err = in.read(answer, own)
	}
	if c.err == nil {
		in.answers.put(id, c.tok)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.calls, id)
	if own == nil {
		in.settleUnproven(c.err)
	}
	if c.err != nil && ReasonOf(c.err) != ReasonIntrospection {
		in.remember(id, c.err)
	}
	close(c.done)
}

// askSafely keeps a panic of the introspector from ending the process: nobody above
// this goroutine would recover it.
func (in *Introspection) askSafely(ctx context.Context, raw string) (answer []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %T", p)
		}
	}()
	return in.cfg.Introspector.Introspect(ctx, raw)
}

// remember notes a refusal, if there is room for it. in.mu is held.
func (in *Introspection) remember(id seenID, why error) {
	now := in.cfg.Now()
	if len(in.refused) >= maxRefused {
		for other, known := range in.refused {
			if now.Sub(known.at) >= refusedFor {
				delete(in.refused, other)
			}
		}
	}
	if len(in.refused) < maxRefused {
		in.refused[id] = refused{why, now}
	}
}

func inactive() error {
	return refuse(ReasonInactive, "the issuer says that the token is not active: it was revoked, its session has "+
		"ended, or it is of another realm")
}

func introspectionUnavailable(err error) error {
	return &Error{
		Reason: ReasonIntrospection,
		Hint:   "the issuer cannot be asked about the token: see whether this server reaches it, and its client there",
		Err:    err,
	}
}

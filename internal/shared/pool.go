// Package shared keeps things alive that several configurations use, so that a
// reload with unchanged settings finds them warm: stores, key sets, database
// pools.
package shared

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/caddyserver/caddy/v2"
)

// Pool holds values of one kind, each for as long as anybody uses it.
//
// A value is found by all the settings it is made from, secrets resolved: a
// rotated password makes a new value. What is pooled must hold no logger,
// metrics or context of the configuration that happened to make it.
type Pool[T caddy.Destructor] struct {
	values *caddy.UsagePool
	secret [32]byte

	// Those that are in use, for All. Caddy's pool can be walked as well, but to
	// walk it while one of its values fails to be made is to hang.
	mu   sync.Mutex
	live map[string]T
}

// NewPool returns an empty pool.
func NewPool[T caddy.Destructor]() *Pool[T] {
	p := &Pool[T]{values: caddy.NewUsagePool(), live: make(map[string]T)}
	_, _ = rand.Read(p.secret[:]) // never fails: crypto/rand ends the process rather
	return p
}

// Acquire returns the value for settings, made by create if there is none yet,
// and a function that gives it back. That function may be called more than
// once; only the first call counts.
func (p *Pool[T]) Acquire(settings any, create func() (T, error)) (T, func() error, error) {
	var none T
	key, err := p.key(settings)
	if err != nil {
		return none, nil, err
	}
	value, _, err := p.values.LoadOrNew(key, func() (caddy.Destructor, error) { return create() })
	if err != nil {
		return none, nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live[key] = value.(T)
	release := sync.OnceValue(func() error { return p.release(key) })
	return value.(T), release, nil
}

// release gives a value back.
func (p *Pool[T]) release(key string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	deleted, err := p.values.Delete(key)
	if deleted {
		delete(p.live, key)
	}
	return err
}

// All returns the values in use at this moment.
func (p *Pool[T]) All() []T {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.live))
}

// key is a keyed digest, because settings hold secrets and Caddy may log keys.
func (p *Pool[T]) key(settings any) (string, error) {
	text, err := json.Marshal(settings)
	if err != nil {
		return "", fmt.Errorf("reading settings: %w", err)
	}
	mac := hmac.New(sha256.New, p.secret[:])
	_, _ = mac.Write(text)
	return hex.EncodeToString(mac.Sum(nil)), nil
}

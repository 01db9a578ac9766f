package upstream

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	refresh  = 5 * time.Minute // how often the keys are fetched
	forget   = time.Hour       // how long old ones will do while they cannot be
	cooldown = 5 * time.Second // between two fetches, whatever comes in
)

// keys are Caddy's, by kid.
type keys struct {
	mu           sync.Mutex
	byID         map[string]jose.JSONWebKey
	asked, known time.Time // when they were last asked for, and had
}

func (k *keys) get(ctx context.Context, url, id string) (jose.JSONWebKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, ok := k.byID[id]
	if since := time.Since(k.asked); since > refresh || !ok && since > cooldown {
		k.asked = time.Now()
		if fetched, err := fetch(context.WithoutCancel(ctx), url); err == nil {
			k.byID, k.known = fetched, k.asked
		}
		key, ok = k.byID[id]
	}
	switch {
	case time.Since(k.known) > forget:
		return key, ErrUnavailable
	case !ok:
		return key, ErrInvalid
	}
	return key, nil
}

func fetch(ctx context.Context, url string) (map[string]jose.JSONWebKey, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	var set jose.JSONWebKeySet
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&set); err != nil {
		return nil, err
	}
	byID := map[string]jose.JSONWebKey{}
	for _, key := range set.Keys {
		byID[key.KeyID] = key
	}
	return byID, nil
}

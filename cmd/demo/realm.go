package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// What is called the same in the embedded and in a real Keycloak.
const (
	realmName = "kca-demo"
	clientID  = "shop-web" // public, with the password grant
	audience  = "shop"     // what an audience mapper puts into `aud`
)

// realm is a Keycloak realm with the demo's users and client.
type realm struct {
	about    string // one line for people
	issuer   string // as tokens name it
	base     string // its URL from here; differs from issuer behind a proxy
	tokenURL string
	ids      map[string]string // user name → Keycloak id

	// rotate makes a new key sign from now on. Tokens of the keys before it
	// stay good.
	rotate func(context.Context) error
	close  func()
}

const (
	rotateEvery   = time.Minute
	tokenLifespan = 5 * time.Minute

	// passiveKeys is how many old keys are published: as many as may have
	// signed a token that has not expired, and some for those rotated by hand.
	passiveKeys = int(tokenLifespan/rotateEvery) + 5
)

// embedKeycloak starts the stand-in for Keycloak. Its key changes every minute.
func embedKeycloak() (*realm, error) {
	server, err := kctest.NewServer()
	if err != nil {
		return nil, fmt.Errorf("starting the embedded Keycloak: %w", err)
	}
	embedded := server.Realm(realmName)
	embedded.SetLifespan(tokenLifespan)
	embedded.AddClient(kctest.Client{ID: clientID, Audience: []string{audience}})
	ids := make(map[string]string)
	for _, name := range users {
		ids[name] = embedded.AddUser(kctest.User{
			Username: name, Password: name, Email: name + "@example.com", EmailVerified: true,
		}).ID
	}

	keys := newKeyRing(embedded, "RS256")
	stop := make(chan struct{})
	var rotating sync.WaitGroup
	rotating.Go(func() { keys.rotateUntil(stop) })
	return &realm{
		about:    fmt.Sprintf("embedded, %s, with a new key every minute", embedded.URL()),
		issuer:   embedded.Issuer(),
		base:     embedded.URL(),
		tokenURL: embedded.TokenURL(),
		ids:      ids,
		rotate:   func(context.Context) error { keys.rotate(); return nil },
		close: func() {
			close(stop)
			rotating.Wait()
			server.Stop()
		},
	}, nil
}

// keyRing is the keys of a realm for one algorithm. It withdraws those whose tokens
// have expired.
type keyRing struct {
	realm     *kctest.Realm
	algorithm string

	mu   sync.Mutex
	keys []*kctest.Key // the oldest first
}

func newKeyRing(realm *kctest.Realm, algorithm string) *keyRing {
	return &keyRing{realm: realm, algorithm: algorithm, keys: []*kctest.Key{realm.ActiveKey(algorithm)}}
}

func (k *keyRing) rotate() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = append(k.keys, k.realm.Rotate(k.algorithm))
	if len(k.keys) > passiveKeys+1 {
		k.realm.Disable(k.keys[0])
		k.keys = k.keys[1:]
	}
}

func (k *keyRing) rotateUntil(stop <-chan struct{}) {
	tick := time.NewTicker(rotateEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			k.rotate()
		}
	}
}

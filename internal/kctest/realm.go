package kctest

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Realm is one realm of a [Server]. Its methods may be used while it serves.
type Realm struct {
	server *Server
	name   string

	mu       sync.Mutex
	issuer   string // other than the URL, if set
	alg      string // signs where nothing else is said
	keys     []*Key // the newest first; none until somebody asks
	users    map[string]User
	clients  map[string]Client
	faults   map[Endpoint]Fault
	requests map[Endpoint]int
	lifespan time.Duration
}

// User is somebody tokens are made for.
type User struct {
	ID            string // becomes sub; chosen by AddUser if empty
	Username      string
	Password      string
	Email         string
	EmailVerified bool
	GivenName     string
	FamilyName    string
	RealmRoles    []string
	ClientRoles   map[string][]string
	Groups        []string // makes a groups claim, if any
	Organizations []string // makes an organization claim, if any
}

// Client is an application that gets tokens.
type Client struct {
	ID       string
	Secret   string   // empty: a public client
	Audience []string // added to aud, as audience mappers do
}

func newRealm(s *Server, name string) *Realm {
	return &Realm{
		server:   s,
		name:     name,
		users:    make(map[string]User),
		clients:  make(map[string]Client),
		faults:   make(map[Endpoint]Fault),
		requests: make(map[Endpoint]int),
		lifespan: 5 * time.Minute,
		alg:      "RS256",
	}
}

// URL is the realm's address.
func (r *Realm) URL() string { return r.server.URL() + "/realms/" + r.name }

// Issuer is what tokens and discovery name as issuer.
func (r *Realm) Issuer() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return cmp.Or(r.issuer, r.URL())
}

// SetIssuer makes tokens and discovery name another issuer than the realm's address,
// as Keycloak's hostname option and frontendUrl do.
func (r *Realm) SetIssuer(issuer string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.issuer = issuer
}

// SetLifespan sets how long access tokens live. At first it is 5 minutes.
func (r *Realm) SetLifespan(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lifespan = d
}

// SetDefaultAlgorithm sets what tokens are signed with where no option says so. At
// first it is RS256, as in Keycloak; ES256 and EdDSA make their keys in no time.
func (r *Realm) SetDefaultAlgorithm(alg string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.alg = alg
}

// JWKSURL is the address of the key set.
func (r *Realm) JWKSURL() string { return r.URL() + "/" + string(Certs) }

// TokenURL is the address of the token endpoint.
func (r *Realm) TokenURL() string { return r.URL() + "/" + string(Tokens) }

// AddUser adds or replaces a user, by user name.
func (r *Realm) AddUser(u User) User {
	r.mu.Lock()
	defer r.mu.Unlock()
	if u.ID == "" {
		u.ID = newUUID()
	}
	r.users[u.Username] = u
	return u
}

// AddClient adds or replaces a client, by id.
func (r *Realm) AddClient(c Client) Client {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clients[c.ID] = c
	return c
}

// ActiveKey is the key that signs for alg now, made first if there is none.
func (r *Realm) ActiveKey(alg string) *Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.allKeys() {
		if k.Algorithm == alg && !k.disabled {
			return k
		}
	}
	return r.addKey(alg)
}

// Rotate makes a new key sign for alg. The keys before it are passive: published,
// and good for verifying, until [Realm.Disable].
func (r *Realm) Rotate(alg string) *Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.allKeys()
	return r.addKey(alg)
}

// allKeys makes the keys a new realm has, if there are none yet. r.mu is held.
func (r *Realm) allKeys() []*Key {
	if len(r.keys) == 0 {
		r.keys = []*Key{newKey(r.alg), newKey("RSA-OAEP")}
	}
	return r.keys
}

// addKey puts a new key in front. r.mu is held.
func (r *Realm) addKey(alg string) *Key {
	k := newKey(alg)
	r.keys = slices.Insert(r.keys, 0, k)
	return k
}

// Disable withdraws a key: it is published no more.
func (r *Realm) Disable(k *Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k.disabled = true
}

// Requests returns how often an endpoint was asked since the realm was made.
func (r *Realm) Requests(e Endpoint) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests[e]
}

// Break makes endpoints misbehave, all of them if none is named.
func (r *Realm) Break(fault Fault, endpoints ...Endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(endpoints) == 0 {
		endpoints = []Endpoint{Discovery, Certs, Tokens}
	}
	for _, e := range endpoints {
		r.faults[e] = fault
	}
}

// Repair ends what [Realm.Break] began.
func (r *Realm) Repair() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.faults)
}

// newUUID returns a random UUID (RFC 9562 §5.4), as Keycloak gives to users and
// sessions.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

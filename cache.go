package keycloakcacheauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/shared"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/tlsidentity"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// Memory is the part of the cache that this process keeps to itself.
type Memory struct {
	// How many bytes the cached members may take, approximately. When it is
	// full, members that are rarely asked for leave. Default: 64 MiB.
	MaxSize int64 `json:"max_size,omitempty"`

	// How many bytes the verified tokens may take that are remembered, so that
	// their signatures need not be verified again: about 4 KB for each user who is
	// active, twice that where claims are asked for by their names. When it is
	// full, tokens that are rarely seen leave. Default: 64 MiB.
	MaxTokensSize int64 `json:"max_tokens_size,omitempty"`
}

// Store is the part of the cache that several Caddy nodes share.
type Store struct {
	// Where it is: `memory://` for none (the default), or a Redis:
	//
	//   - `redis://[user:password@]host[:port][/database]`
	//   - `unix:///path/of/the.sock[?db=database]`
	//   - `redis+sentinel://[user:password@]host[:port],host[:port]/master[/database]`
	//   - `redis+cluster://[user:password@]host[:port],host[:port]`
	//
	// With `rediss` instead of `redis` it is reached over TLS. Give secrets as
	// global placeholders, e.g. `redis://:{env.REDIS_PASSWORD}@redis.internal/0`.
	URL string `json:"url,omitempty"`

	// The tenants whose members are in this store. Those of all other tenants
	// are in the store that names none. Default: that is this one.
	Tenants []string `json:"tenants,omitempty"`

	// The first part of every key in Redis. Letters, digits, `.`, `_` and `-`.
	// Default: `kca`.
	KeyPrefix string `json:"key_prefix,omitempty"`

	// The part of every key that keeps the answers of different resolvers
	// apart. Default: a digest of the resolvers' settings, so that changed
	// settings begin with an empty cache. Give a name to share members between
	// sites whose resolvers answer alike.
	Namespace string `json:"namespace,omitempty"`

	// The most time that one look-up may spend on Redis; what takes longer is
	// done without it. Default: 50ms.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// How long this node may go on without having read the log of flushes. A
	// member that was cached before that is then resolved anew, so that a flush
	// which this node cannot hear of holds here after this time all the same.
	// Default: 5s.
	MaxBlind caddy.Duration `json:"max_blind,omitempty"`

	// Encrypts and authenticates what is stored, so that who can read Redis
	// learns nothing of the members and who can write to it can make none up. At
	// least 32 random bytes each, such as `{env.CACHE_SECRET}`. The first one
	// writes, all of them read.
	Secrets []string `json:"secrets,omitempty"`

	// The certificate authorities that Redis' certificate is checked against,
	// as a Caddy `tls.ca_pool.source` module. Default: the system's.
	TrustPoolRaw json.RawMessage `json:"trust_pool,omitempty" caddy:"namespace=tls.ca_pool.source inline_key=provider"`

	// A certificate, and below its key, with which this server shows who it is
	// to Redis (mutual TLS): paths of PEM files. Both or none.
	ClientCertificateFile string `json:"client_certificate_file,omitempty"`

	// The path of the client certificate's private key, a PEM file.
	ClientKeyFile string `json:"client_key_file,omitempty"`

	// The name that Redis' certificate must have. Default: the URL's host.
	ServerName string `json:"server_name,omitempty"`
}

// Defaults of the cache.
const (
	defaultMaxSize       = 64 << 20
	defaultMaxTokensSize = 64 << 20
	defaultKeyPrefix     = "kca"
	defaultRedisTimeout  = 50 * time.Millisecond
	defaultMaxBlind      = 5 * time.Second

	// Sizes and times beyond these are taken for mistakes.
	minMaxSize      = 1 << 20
	maxMaxSize      = 1 << 40
	maxRedisTimeout = 10 * time.Second
	minMaxBlind     = time.Second
	maxMaxBlind     = time.Hour

	minStoreSecret = 32

	// maxClaims bounds the DPoP proofs that are remembered, of which each client
	// may have a hundredth: a few dozen bytes in memory each.
	maxClaims = 500_000

	// logoutReserve is how much longer than any token a logout is believed in that
	// others wrote, for clocks that differ.
	logoutReserve = 10 * time.Minute
)

// check tells what is wrong with the memory's settings.
func (m Memory) check() error {
	for _, size := range []struct {
		name  string
		bytes int64
	}{{"max_size", m.MaxSize}, {"max_tokens_size", m.MaxTokensSize}} {
		if size.bytes != 0 && (size.bytes < minMaxSize || size.bytes > maxMaxSize) {
			return fmt.Errorf("memory: %s %d is not between 1MiB and 1TiB", size.name, size.bytes)
		}
	}
	return nil
}

// check tells what is wrong with the store's settings, once they are expanded.
// It repeats no part of the URL, which may hold a password.
func (s Store) check() error {
	if err := s.checkURL(); err != nil {
		return err
	}
	switch {
	case s.Timeout < 0 || time.Duration(s.Timeout) > maxRedisTimeout:
		return fmt.Errorf("store: timeout %s is negative or more than %s", time.Duration(s.Timeout), maxRedisTimeout)
	case s.MaxBlind != 0 && (time.Duration(s.MaxBlind) < minMaxBlind || time.Duration(s.MaxBlind) > maxMaxBlind):
		return fmt.Errorf("max_blind: %s is not between %s and %s", time.Duration(s.MaxBlind), minMaxBlind, maxMaxBlind)
	case (s.ClientCertificateFile == "") != (s.ClientKeyFile == ""):
		return errors.New("client_certificate needs two arguments: the certificate's file and its key's")
	case s.hasTLSSettings() && !s.isEncrypted() && !hasPlaceholder(s.URL):
		return errors.New("store: trust_pool, client_certificate and server_name need a URL that begins with rediss")
	case s.URL == memoryURL && (len(s.Secrets) > 0 || s.MaxBlind != 0 || s.Timeout != 0 || s.KeyPrefix != ""):
		return errors.New("store: memory:// shares nothing, so it takes neither secret, max_blind, timeout nor key_prefix")
	}
	for _, secret := range s.Secrets {
		if !hasPlaceholder(secret) && len(secret) < minStoreSecret {
			return fmt.Errorf("secret: it is shorter than %d bytes; make one with `openssl rand -base64 32`", minStoreSecret)
		}
	}
	for _, tenant := range s.Tenants {
		if !isTenantName(tenant) {
			return errors.New("tenants: a name is empty, longer than 63 bytes, or no tenant's; write names as requests carry them")
		}
	}
	return nil
}

func (s Store) checkURL() error {
	switch {
	case hasPlaceholder(s.URL), s.URL == memoryURL:
		return nil // the former is checked once it is expanded
	case strings.HasPrefix(s.URL, "memory:"):
		return errors.New("store: memory:// takes nothing after it")
	}
	return store.CheckURL(s.URL) // its errors begin with "store: "
}

func (s Store) hasTLSSettings() bool {
	return s.TrustPoolRaw != nil || s.ClientCertificateFile != "" || s.ServerName != ""
}

func (s Store) isEncrypted() bool { return strings.HasPrefix(s.URL, "rediss") }

// stores holds the caches of all configurations, so that a reload with
// unchanged settings finds them warm.
var stores = shared.NewPool[*memberStore]()

// memberStore is a cache of members and the look-ups under way in it, of which
// there is one per member and node.
type memberStore struct {
	*store.Store
	flights flights
	watches watches
	views   views
	name    string // without secrets

	beginning sync.Once
	begun     time.Time
	settled   atomic.Bool
	later     *time.Timer // begins, should there be no request
}

const (
	// beginDelay is after how long a store begins without a request.
	beginDelay = time.Second

	// settleTime is how long after that requests wait for the log to be read, if
	// they need more than memory has: what is in Redis cannot be used before, and
	// what they would load would be loaded once more.
	settleTime = 500 * time.Millisecond
)

// begin connects the store to what it follows: the log of flushes, and the
// sources that tell of changes. The first request does that, or some time, and
// not the configuration: what is loaded only to be checked, as `caddy validate`
// does, must leave no trace.
func (m *memberStore) begin() {
	m.beginning.Do(func() {
		m.begun = time.Now()
		m.adopt(stores.All()) // what they heard of since
		m.Start()
		m.watches.begin(m)
	})
}

// neverBegin keeps the store from connecting to anything, where a configuration is
// loaded and nothing is served.
func (m *memberStore) neverBegin() {
	m.beginning.Do(func() { m.later.Stop() })
}

// settle waits, in the first moments of a store, until it knows what the log
// says.
func (m *memberStore) settle(ctx context.Context) {
	if m.settled.Load() {
		return
	}
	m.begin()
	ctx, cancel := context.WithDeadline(ctx, m.begun.Add(settleTime))
	defer cancel()
	m.WaitForLog(ctx)
	m.settled.Store(true)
}

// Destruct implements [caddy.Destructor].
func (m *memberStore) Destruct() error {
	m.later.Stop()
	m.watches.end()
	return m.Store.Destruct()
}

// acquireStore returns the cache with these settings, secrets expanded, and a
// function that gives it back. It does not connect.
func acquireStore(ctx caddy.Context, memory Memory, settings Store, tokenLifetime time.Duration) (*memberStore, func() error, error) {
	if memory.MaxSize == 0 {
		memory.MaxSize = defaultMaxSize
	}
	if settings.KeyPrefix == "" {
		settings.KeyPrefix = defaultKeyPrefix
	}
	if settings.URL == memoryURL {
		settings.URL = ""
	}
	identity, err := tlsidentity.New(ctx, &settings, settings.TrustPoolRaw, settings.ClientCertificateFile, settings.ClientKeyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("store: %w", err)
	}
	config := store.Config{
		URL:         settings.URL,
		Prefix:      settings.KeyPrefix,
		MemoryBytes: memory.MaxSize,
		Timeout:     orDefault(settings.Timeout, defaultRedisTimeout),
		MaxBlind:    orDefault(settings.MaxBlind, defaultMaxBlind),
		Secrets:     settings.Secrets,
		MaxClaims:   maxClaims,
		Lazy:        true,

		MaxLogoutLife: max(defaultTokenLifetime, tokenLifetime) + maxLeeway + logoutReserve,
	}
	if settings.isEncrypted() {
		config.TLS = identity.Config()
		config.TLS.ServerName = settings.ServerName
	}
	key := struct {
		Memory        int64
		Store         Store
		Identity      tlsidentity.Identity
		MaxLogoutLife time.Duration
	}{memory.MaxSize, settings, identity, config.MaxLogoutLife}
	// these tell members of one store apart, not stores
	key.Store.Namespace, key.Store.Tenants = "", nil
	key.Store.Timeout, key.Store.MaxBlind = caddy.Duration(config.Timeout), caddy.Duration(config.MaxBlind)
	var isNew bool
	known := stores.All()
	opened, release, err := stores.Acquire(key, func() (*memberStore, error) {
		isNew = true
		opened, err := store.New(config)
		if err != nil {
			return nil, err
		}
		m := &memberStore{Store: opened, name: store.SafeName(settings.URL)}
		m.later = time.AfterFunc(beginDelay, m.begin)
		return m, nil
	})
	if isNew && err == nil {
		opened.adopt(known)
	}
	return opened, release, err
}

// adopt learns from other stores who was logged out: a reload that changes a
// setting must not forget it.
func (m *memberStore) adopt(others []*memberStore) {
	for _, other := range others {
		if other != m {
			m.Adopt(other.Store)
		}
	}
}

// newKeys returns the builder of the keys of these resolvers' members.
func newKeys(settings Store, resolvers []member.Resolver) (*store.Keys, error) {
	if settings.KeyPrefix == "" {
		settings.KeyPrefix = defaultKeyPrefix
	}
	if settings.Namespace == "" {
		settings.Namespace = store.Namespace(identitiesOf(resolvers)...)
	}
	return store.NewKeys(settings.KeyPrefix, settings.Namespace)
}

func identitiesOf(resolvers []member.Resolver) []string {
	identities := make([]string, 0, len(resolvers))
	for _, resolver := range resolvers {
		identities = append(identities, resolver.Identity())
	}
	return identities
}

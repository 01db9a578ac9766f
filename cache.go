package keycloakcacheauth

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/sync/singleflight"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/shared"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// Memory is the part of the cache that this process keeps to itself.
type Memory struct {
	// How many bytes the cached members may take, approximately. When it is
	// full, members that are rarely asked for leave. Default: 64 MiB.
	MaxSize int64 `json:"max_size,omitempty"`
}

// Store is the part of the cache that several Caddy nodes share.
type Store struct {
	// Where it is: `memory://` for none (the default), `redis://` or
	// `rediss://` (TLS) followed by `[user:password@]host[:port][/database]`.
	// Give secrets as global placeholders, e.g.
	// `redis://:{env.REDIS_PASSWORD}@redis.internal:6379/0`.
	URL string `json:"url,omitempty"`

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
}

// Defaults of the cache.
const (
	defaultMaxSize      = 64 << 20
	defaultKeyPrefix    = "kca"
	defaultRedisTimeout = 50 * time.Millisecond

	// Sizes and times beyond these are taken for mistakes.
	minMaxSize      = 1 << 20
	maxMaxSize      = 1 << 40
	maxRedisTimeout = 10 * time.Second
)

// check tells what is wrong with the memory's settings.
func (m Memory) check() error {
	if m.MaxSize != 0 && (m.MaxSize < minMaxSize || m.MaxSize > maxMaxSize) {
		return fmt.Errorf("memory: max_size %d is not between 1MiB and 1TiB", m.MaxSize)
	}
	return nil
}

// check tells what is wrong with the store's settings. It repeats no part of
// the URL, which may hold a password.
func (s Store) check() error {
	if hasPlaceholder(s.URL) {
		return nil // checked once it is expanded
	}
	u, err := url.Parse(s.URL)
	if err != nil {
		return errors.New("store: not a URL; give memory://, redis://host:port or rediss://host:port")
	}
	switch u.Scheme {
	case "memory":
		if u.Host != "" || u.Path != "" {
			return errors.New("store: memory:// takes nothing after it")
		}
	case "redis", "rediss":
		if u.Hostname() == "" {
			return errors.New("store: the URL names no host; give redis://host:port or rediss://host:port")
		}
	default:
		return errors.New("store: the URL's scheme is none of memory, redis and rediss")
	}
	if s.Timeout < 0 || time.Duration(s.Timeout) > maxRedisTimeout {
		return fmt.Errorf("store: timeout %s is negative or more than %s", time.Duration(s.Timeout), maxRedisTimeout)
	}
	return nil
}

// stores holds the caches of all configurations, so that a reload with
// unchanged settings finds them warm.
var stores = shared.NewPool[*memberStore]()

// memberStore is a cache of members and the look-ups under way in it, of which
// there is one per member and node.
type memberStore struct {
	*store.Store
	flights singleflight.Group
}

// acquireStore returns the cache with these settings, secrets expanded, and a
// function that gives it back. It does not connect.
func acquireStore(memory Memory, shared Store) (*memberStore, func() error, error) {
	if memory.MaxSize == 0 {
		memory.MaxSize = defaultMaxSize
	}
	if shared.Timeout == 0 {
		shared.Timeout = caddy.Duration(defaultRedisTimeout)
	}
	if shared.KeyPrefix == "" {
		shared.KeyPrefix = defaultKeyPrefix
	}
	shared.Namespace = "" // tells members of one store apart, not stores
	if strings.HasPrefix(shared.URL, "memory:") {
		shared.URL = ""
	}
	settings := struct {
		Memory Memory
		Store  Store
	}{memory, shared}
	return stores.Acquire(settings, func() (*memberStore, error) {
		opened, err := store.New(store.Config{
			URL:         shared.URL,
			Prefix:      shared.KeyPrefix,
			MemoryBytes: memory.MaxSize,
			Timeout:     time.Duration(shared.Timeout),
		})
		if err != nil {
			return nil, err
		}
		return &memberStore{Store: opened}, nil
	})
}

// newKeys returns the builder of the keys of these resolvers' members.
func newKeys(settings Store, resolvers []member.Resolver) (*store.Keys, error) {
	if settings.KeyPrefix == "" {
		settings.KeyPrefix = defaultKeyPrefix
	}
	if settings.Namespace == "" {
		identities := make([]string, 0, len(resolvers))
		for _, resolver := range resolvers {
			identities = append(identities, resolver.Identity())
		}
		settings.Namespace = store.Namespace(identities...)
	}
	return store.NewKeys(settings.KeyPrefix, settings.Namespace)
}

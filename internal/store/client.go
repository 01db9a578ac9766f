package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// DefaultTimeout is the time budget of all Redis operations of one look-up.
	DefaultTimeout = 50 * time.Millisecond

	// dialTimeout bounds connecting, TLS included. A request does not wait for
	// it longer than its budget: go-redis connects on a goroutine of its own and
	// keeps the connection for the next.
	dialTimeout = time.Second

	// DefaultLogLength is about how many events the flush log keeps unless the
	// configuration says otherwise. An event takes about 100 bytes.
	DefaultLogLength = 100000

	// logConnections is how many connections the flush log may have.
	logConnections = 8
)

// newClients returns a client for look-ups and one for the flush log, for a
// redis, rediss or unix URL. They do not connect. Errors say nothing of the
// URL, which holds a password.
func newClients(cfg *Config) (redis.UniversalClient, logClient, error) {
	options, err := newOptions(cfg)
	if err != nil {
		return nil, nil, err
	}
	silenceGoRedis()
	client := redis.NewClient(options)
	if cfg.logClient != nil {
		return client, cfg.logClient, nil
	}

	// The log's time is bounded by contexts. These are for what they do not
	// reach, such as the greeting of a new connection. One connection waits for
	// events, the others are for flushes.
	patient := *options
	patient.ReadTimeout, patient.WriteTimeout, patient.PoolTimeout = readBudget, readBudget, readBudget
	patient.PoolSize = logConnections
	return client, &redisLog{client: redis.NewClient(&patient), key: logKey(cfg.Prefix), length: cfg.LogLength}, nil
}

// newOptions returns what makes go-redis keep to our budgets.
func newOptions(cfg *Config) (*redis.Options, error) {
	options, err := parseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.TLS != nil {
		if options.TLSConfig == nil {
			return nil, errors.New("store: TLS settings need a rediss:// URL")
		}
		serverName := options.TLSConfig.ServerName
		options.TLSConfig = cfg.TLS.Clone()
		if options.TLSConfig.ServerName == "" {
			options.TLSConfig.ServerName = serverName
		}
		options.TLSConfig.MinVersion = max(options.TLSConfig.MinVersion, tls.VersionTLS12)
	}

	// Without this the context's deadline means nothing, and a frozen server
	// holds each request for the whole read time-out.
	options.ContextTimeoutEnabled = true
	options.DialTimeout = dialTimeout
	options.DialerRetries = 1
	options.ReadTimeout = cfg.Timeout
	options.WriteTimeout = cfg.Timeout
	options.PoolTimeout = cfg.Timeout

	// No second try: it would cost a sick server twice, and the resolver knows
	// the answer anyway.
	options.MaxRetries = -1

	// RESP2 has all we use and every server and proxy speaks it. RESP3 would
	// bring push messages, and with them more state for each connection.
	options.Protocol = 2
	options.DisableIdentity = true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	options.PipelinePoolSize = -1
	return options, nil
}

// parseURL reads a URL as redis.ParseURL does, save that its query may only
// name the database of a Unix socket: time-outs and the like are ours to set,
// and verification of certificates is not to be switched off in passing.
func parseURL(text string) (*redis.Options, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("store: the URL is malformed; are special characters of its password percent-encoded?")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil || u.Fragment != "" {
		return nil, errors.New("store: the URL is malformed; are special characters of its password percent-encoded?")
	}
	switch u.Scheme {
	case "redis", "rediss":
		if u.Hostname() == "" {
			return nil, errors.New("store: the URL names no host")
		}
	case "unix":
		if u.Host != "" || u.Path == "" {
			return nil, errors.New("store: a unix:// URL needs the absolute path of a socket: unix:///run/redis.sock")
		}
		if len(query["db"]) == 1 {
			delete(query, "db")
		}
	default:
		return nil, fmt.Errorf("store: %w: use memory://, redis://, rediss:// or unix://", errScheme)
	}
	if len(query) > 0 {
		return nil, errors.New("store: the URL has query parameters; only db of a unix:// URL is known")
	}
	options, err := redis.ParseURL(text)
	if err != nil || options.DB < 0 {
		return nil, errors.New("store: the URL's database is not a number: redis://host:6379/0")
	}
	return options, nil
}

var errScheme = errors.New("the URL's scheme is not known")

// silenceGoRedis replaces go-redis' logger, once. That logger is one for the
// whole process and writes to standard error, a line for each failed dial. All
// it would say comes back as an error too, and is told to the [Observer]. That
// another module in the same Caddy loses those lines as well cannot be helped:
// the library has no logger for each client.
var silenceGoRedis = sync.OnceFunc(func() { redis.SetLogger(noLogger{}) })

type noLogger struct{}

func (noLogger) Printf(context.Context, string, ...any) {}

// boundedClient is what gocache's redis store sees of the client: as much as
// is needed, and nothing that could do harm.
type boundedClient struct {
	redis.UniversalClient
}

// Get reads no more of a value than an entry can have, and one byte. A plain
// GET would let one huge value under one of our keys cost each look-up its
// size. GETRANGE answers "" for a missing key, and an empty value is no entry
// either, so that is a miss.
func (c boundedClient) Get(ctx context.Context, key string) *redis.StringCmd {
	cmd := c.GetRange(ctx, key, 0, MaxEntrySize)
	if cmd.Err() == nil && cmd.Val() == "" {
		cmd.SetErr(redis.Nil)
	}
	return cmd
}

// Del frees a value's memory in the background of the server.
func (c boundedClient) Del(ctx context.Context, keys ...string) *redis.IntCmd {
	return c.Unlink(ctx, keys...)
}

// FlushAll would empty the whole server, whoever else uses it.
func (c boundedClient) FlushAll(ctx context.Context) *redis.StatusCmd {
	cmd := redis.NewStatusCmd(ctx)
	cmd.SetErr(errMisuse)
	return cmd
}

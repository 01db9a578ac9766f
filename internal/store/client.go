package store

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	redisstore "github.com/eko/gocache/store/redis/v4"
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

// maxRedirects is how often a cluster may send a command on to another server:
// by MOVED and then, while a slot is on its way, by ASK.
const maxRedirects = 2

// newClients returns a client for look-ups and one for the flush log. They do
// not connect.
func newClients(cfg *Config) (redis.UniversalClient, logClient, error) {
	where, err := parseURL(cfg.URL)
	if err != nil {
		return nil, nil, err
	}
	options, err := newOptions(cfg, where)
	if err != nil {
		return nil, nil, err
	}
	silenceGoRedis()
	client := where.client(options)
	if cfg.logClient != nil {
		return client, cfg.logClient, nil
	}

	// The log's time is bounded by contexts. These are for what they do not
	// reach, such as the greeting of a new connection. One connection waits for
	// events, the others are for flushes.
	patient := *options
	patient.ReadTimeout, patient.WriteTimeout, patient.PoolTimeout = readBudget, readBudget, readBudget
	patient.PoolSize = logConnections
	return client, &redisLog{client: where.client(&patient), key: logKey(cfg.Prefix), length: cfg.LogLength}, nil
}

// newOptions returns what makes go-redis keep to our budgets.
func newOptions(cfg *Config, where *target) (*redis.UniversalOptions, error) {
	options := &redis.UniversalOptions{
		Addrs: where.addresses, DB: where.database,
		Username: where.user, Password: where.password,
		MasterName: where.master, SentinelUsername: where.sentinelUser, SentinelPassword: where.sentinelPassword,

		// Without this the context's deadline means nothing, and a frozen server
		// holds each request for the whole read time-out.
		ContextTimeoutEnabled: true,
		DialTimeout:           dialTimeout,
		DialerRetries:         1,
		ReadTimeout:           cfg.Timeout,
		WriteTimeout:          cfg.Timeout,
		PoolTimeout:           cfg.Timeout,

		// No second try: it would cost a sick server twice, and the resolver knows
		// the answer anyway.
		MaxRetries:   -1,
		MaxRedirects: maxRedirects,

		// RESP2 has all we use and every server and proxy speaks it. RESP3 would
		// bring push messages, and with them more state for each connection.
		Protocol:                 2,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		PipelinePoolSize:         -1,
	}
	switch {
	case where.secure:
		options.TLSConfig = where.tls(cfg.TLS)
	case cfg.TLS != nil:
		return nil, errors.New("store: TLS settings need a rediss:// URL")
	}
	return options, nil
}

// tls returns the caller's settings with what they leave open. The name of a
// single server is that of the URL; where there are more, each has its own.
func (t *target) tls(settings *tls.Config) *tls.Config {
	if settings == nil {
		settings = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	settings = settings.Clone()
	settings.MinVersion = max(settings.MinVersion, tls.VersionTLS12)
	if settings.ServerName == "" && t.kind == standalone {
		settings.ServerName, _, _ = net.SplitHostPort(t.addresses[0])
	}
	return settings
}

// client makes a client of the target's kind.
func (t *target) client(options *redis.UniversalOptions) redis.UniversalClient {
	switch t.kind {
	case sentinel:
		return redis.NewFailoverClient(options.Failover())
	case cluster:
		return redis.NewClusterClient(options.Cluster())
	case socket:
		simple := options.Simple()
		simple.Network = "unix"
		return redis.NewClient(simple)
	default:
		return redis.NewClient(options.Simple())
	}
}

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
	redisstore.RedisClientInterface // what is not bounded; a client has hundreds of methods more
	client                          redis.UniversalClient
}

func newBoundedClient(client redis.UniversalClient) boundedClient {
	return boundedClient{client, client}
}

// Get reads no more of a value than an entry can have, and one byte. A plain
// GET would let one huge value under one of our keys cost each look-up its
// size. GETRANGE answers "" for a missing key, and an empty value is no entry
// either, so that is a miss.
func (c boundedClient) Get(ctx context.Context, key string) *redis.StringCmd {
	return missIfEmpty(c.client.GetRange(ctx, key, 0, MaxEntrySize))
}

func missIfEmpty(cmd *redis.StringCmd) *redis.StringCmd {
	if cmd.Err() == nil && cmd.Val() == "" {
		cmd.SetErr(redis.Nil)
	}
	return cmd
}

// Del frees a value's memory in the background of the server.
func (c boundedClient) Del(ctx context.Context, keys ...string) *redis.IntCmd {
	return c.client.Unlink(ctx, keys...)
}

// FlushAll would empty the whole server, whoever else uses it.
func (c boundedClient) FlushAll(ctx context.Context) *redis.StatusCmd {
	cmd := redis.NewStatusCmd(ctx)
	cmd.SetErr(errMisuse)
	return cmd
}

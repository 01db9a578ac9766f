package store

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestURLsThatAreRefusedStaySecret(t *testing.T) {
	tests := map[string]struct{ url, want string }{
		"a password that is not encoded":   {"redis://user:s3cr%t@host:6379/0", "percent-encoded"},
		"a control character":              {"redis://user:s3cret@host\x7f:6379", "percent-encoded"},
		"a port that is a text":            {"redis://user:s3cret@host:s3cret/0", "percent-encoded"},
		"a database that is a text":        {"redis://user:s3cret@host:6379/s3cret", "database"},
		"a negative database":              {"redis://user:s3cret@host:6379/-1", "database"},
		"two databases":                    {"redis://user:s3cret@host:6379/0/s3cret", "database"},
		"an unknown scheme":                {"s3cret://user:s3cret@host", "scheme"},
		"http":                             {"http://user:s3cret@host", "scheme"},
		"no scheme":                        {"host:6379", "scheme"},
		"just text":                        {"s3cret", "scheme"},
		"no host":                          {"redis://:s3cret@/0", "no host"},
		"no host at all":                   {"redis://", "no host"},
		"a switch to skip verification":    {"rediss://user:s3cret@host?skip_verify=true", "query"},
		"a time-out, which is ours to set": {"redis://user:s3cret@host?read_timeout=1h", "query"},
		"a password in the query":          {"redis://host?password=s3cret", "query"},
		"a query that is malformed":        {"redis://host?s3cret=%zz", "percent-encoded"},
		"a fragment: a # in the password":  {"redis://user:pass#s3cret@host", "percent-encoded"},
		"a unix socket with a host":        {"unix://run/s3cret.sock", "absolute path"},
		"a unix socket without a path":     {"unix://user:s3cret@", "absolute path"},
		"a unix socket's database: a text": {"unix:///run/redis.sock?db=s3cret", "database"},
		"a unix socket with two databases": {"unix:///run/redis.sock?db=1&db=2", "query"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := New(Config{URL: test.url})
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("%q does not speak of %s", err, test.want)
			}
			for _, secret := range []string{"s3cr", "host:", "user"} {
				if strings.Contains(err.Error(), secret) && !strings.Contains(err.Error(), "redis://host:6379/0") {
					t.Errorf("%q quotes the URL", err)
				}
			}
			if strings.Contains(err.Error(), "s3cr") {
				t.Errorf("%q quotes the password", err)
			}
		})
	}
}

func TestConfigRefusesNonsense(t *testing.T) {
	for name, cfg := range map[string]Config{
		"a negative size":     {MemoryBytes: -1},
		"a negative timeout":  {Timeout: -1},
		"a prefix with colon": {Prefix: "a:b"},
		"a blindness always":  {MaxBlind: time.Second - 1},
		"a negative log":      {LogLength: -1},
		"negative logouts":    {MaxLogouts: -1},
		"negative claims":     {MaxClaims: -1},
		"TLS without Redis":   {TLS: &tls.Config{MinVersion: tls.VersionTLS12}},
		"TLS without TLS":     {URL: "redis://host", TLS: &tls.Config{MinVersion: tls.VersionTLS12}},
		"TLS on a socket":     {URL: "unix:///s", TLS: &tls.Config{MinVersion: tls.VersionTLS12}},
	} {
		if s, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
			_ = s.Destruct()
		}
	}
}

// options returns what a store's client was made with.
func options(t *testing.T, cfg Config) *redis.Options {
	t.Helper()
	s := newTestStore(t, cfg)
	return s.redis.client.(*redis.Client).Options()
}

func TestClientIsImpatient(t *testing.T) {
	o := options(t, Config{URL: "redis://me:s3cret@localhost:1234/5", Timeout: 70 * time.Millisecond})
	if o.Addr != "localhost:1234" || o.DB != 5 || o.Username != "me" || o.Password != "s3cret" || o.Network != "tcp" {
		t.Errorf("address: %s %s %d", o.Network, o.Addr, o.DB)
	}
	if !o.ContextTimeoutEnabled || o.ReadTimeout != 70*time.Millisecond || o.WriteTimeout != 70*time.Millisecond ||
		o.PoolTimeout != 70*time.Millisecond || o.MaxRetries != 0 || o.DialerRetries != 1 || o.DialTimeout != dialTimeout {
		t.Errorf("time-outs: %+v", o)
	}
	if !o.DisableIdentity || o.Protocol != 2 || o.TLSConfig != nil {
		t.Errorf("the rest: %+v", o)
	}
	if o := options(t, Config{URL: "unix://me:s3cret@/run/redis.sock?db=3"}); o.Network != "unix" || o.Addr != "/run/redis.sock" || o.DB != 3 || o.ReadTimeout != DefaultTimeout {
		t.Errorf("socket: %+v", o)
	}
}

func TestClientVerifiesCertificates(t *testing.T) {
	tests := map[string]struct {
		tls        *tls.Config
		serverName string
	}{
		"by the system's roots":  {nil, "cache.example.com"},
		"by other roots":         {&tls.Config{}, "cache.example.com"},
		"by a name that differs": {&tls.Config{ServerName: "other.example.com"}, "other.example.com"},
		"with a version too old": {&tls.Config{MinVersion: tls.VersionTLS10}, "cache.example.com"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := options(t, Config{URL: "rediss://cache.example.com", TLS: test.tls})
			if o.TLSConfig.ServerName != test.serverName || o.TLSConfig.InsecureSkipVerify || o.TLSConfig.MinVersion < tls.VersionTLS12 {
				t.Errorf("server name %q", o.TLSConfig.ServerName)
			}
			if o.TLSConfig == test.tls {
				t.Error("the caller's settings were changed")
			}
		})
	}
}

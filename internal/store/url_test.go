package store

import (
	"crypto/tls"
	"reflect"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestURLsLeadToServers(t *testing.T) {
	tests := map[string]struct {
		target target
		name   string
	}{
		"redis://host":                {target{addresses: []string{"host:6379"}}, "host:6379/0"},
		"redis://me:s3cret@host:1/2":  {target{addresses: []string{"host:1"}, database: 2, user: "me", password: "s3cret"}, "host:1/2"},
		"redis://:s3%2Fcr%40et@host/": {target{addresses: []string{"host:6379"}, password: "s3/cr@et"}, "host:6379/0"},
		"redis://[::1]:1":             {target{addresses: []string{"[::1]:1"}}, "[::1]:1/0"},
		"rediss://[::1]":              {target{addresses: []string{"[::1]:6379"}, secure: true}, "[::1]:6379/0"},
		"unix:///run/r.sock":          {target{kind: socket, addresses: []string{"/run/r.sock"}}, "/run/r.sock/0"},
		"unix://me:s3cret@/run/r.sock?db=3": {
			target{kind: socket, addresses: []string{"/run/r.sock"}, database: 3, user: "me", password: "s3cret"}, "/run/r.sock/3",
		},
		"redis+sentinel://a/mymaster": {target{kind: sentinel, addresses: []string{"a:26379"}, master: "mymaster"}, "a:26379/mymaster/0"},
		"rediss+sentinel://me:s3cret@a:1,b,[::1]:3/mymaster/4?sentinel_username=you&sentinel_password=s3%26cret": {
			target{
				kind: sentinel, secure: true, addresses: []string{"a:1", "b:26379", "[::1]:3"}, master: "mymaster", database: 4,
				user: "me", password: "s3cret", sentinelUser: "you", sentinelPassword: "s3&cret",
			}, "a:1,b:26379,[::1]:3/mymaster/4",
		},
		"redis+cluster://a:1,b": {target{kind: cluster, addresses: []string{"a:1", "b:6379"}}, "a:1,b:6379"},
		"rediss+cluster://me:s3cret@a:1/0": {
			target{kind: cluster, secure: true, addresses: []string{"a:1"}, user: "me", password: "s3cret"}, "a:1",
		},
	}
	for text, test := range tests {
		t.Run(text, func(t *testing.T) {
			got, err := parseURL(text)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*got, test.target) {
				t.Errorf("got %+v, want %+v", *got, test.target)
			}
			if name := SafeName(text); name != test.name {
				t.Errorf("its name is %s, want %s", name, test.name)
			}
			if err := CheckURL(text); err != nil {
				t.Errorf("refused: %v", err)
			}
		})
	}
	for _, text := range []string{"", "memory://"} {
		if SafeName(text) != "memory" || CheckURL(text) != nil {
			t.Errorf("%q is not memory", text)
		}
	}
}

func TestURLsOfManyServersThatAreRefused(t *testing.T) {
	tests := map[string]struct{ url, want string }{
		"several single servers":          {"redis://:s3cret@a,b", "several hosts"},
		"an empty host":                   {"redis+cluster://:s3cret@a,,b", "no host"},
		"no first host":                   {"redis+cluster://:s3cret@,b", "no host"},
		"a port that is a text":           {"redis+cluster://a,b:s3cret", "percent-encoded"},
		"a comma in the password":         {"redis+cluster://:s3c,ret@a,b:c", "percent-encoded"},
		"a database of a cluster":         {"redis+cluster://:s3cret@a/1", "no databases"},
		"no master":                       {"redis+sentinel://:s3cret@a", "no master"},
		"no master before the database":   {"redis+sentinel://:s3cret@a//1", "no master"},
		"a sentinel's database is a text": {"redis+sentinel://a/m/s3cret", "not a number"},
		"two passwords of the sentinels":  {"redis+sentinel://a/m?sentinel_password=s3cret&sentinel_password=s3cret2", "query"},
		"a query of a cluster":            {"redis+cluster://a?sentinel_password=s3cret", "query"},
		"a switch that is not known":      {"redis+sentinel://a/m?s3cret=1", "query"},
		"a socket of a cluster":           {"unix+cluster:///s3cret", "scheme"},
		"another plus":                    {"redis+s3cret://a", "scheme"},
		"too large a database":            {"redis://:s3cret@a/99999999999", "not a number"},
		"something like a URL":            {"redis:s3cret", "scheme"},
		"TLS by another name":             {"redis+tls://:s3cret@a", "scheme"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := CheckURL(test.url)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("%v does not speak of %s", err, test.want)
			}
			if strings.Contains(err.Error(), "s3c") {
				t.Errorf("%q quotes the URL", err)
			}
			if got := SafeName(test.url); got != "invalid" {
				t.Errorf("its name is %s", got)
			}
		})
	}
}

func TestClientsOfManyServersAreImpatient(t *testing.T) {
	settings := &tls.Config{MinVersion: tls.VersionTLS10}
	cluster := newTestStore(t, Config{URL: "rediss+cluster://me:s3cret@127.0.0.1:1", TLS: settings}).redis.client.(*redis.ClusterClient).Options()
	if !cluster.ContextTimeoutEnabled || cluster.ReadTimeout != DefaultTimeout || cluster.DialTimeout != dialTimeout ||
		cluster.DialerRetries != 1 || cluster.MaxRetries > 0 || cluster.MaxRedirects != maxRedirects || cluster.ReadOnly ||
		!cluster.DisableIdentity || cluster.Protocol != 2 || cluster.Username != "me" || cluster.Password != "s3cret" {
		t.Errorf("cluster: %+v", cluster)
	}
	if cluster.TLSConfig.MinVersion != tls.VersionTLS12 || cluster.TLSConfig.ServerName != "" || cluster.TLSConfig.InsecureSkipVerify {
		t.Errorf("cluster: TLS with name %q", cluster.TLSConfig.ServerName)
	}
	failover := newTestStore(t, Config{URL: "redis+sentinel://me:s3cret@127.0.0.1:1/m/3"}).redis.client.(*redis.Client).Options()
	if !failover.ContextTimeoutEnabled || failover.ReadTimeout != DefaultTimeout || failover.DialTimeout != dialTimeout ||
		failover.DialerRetries != 1 || failover.MaxRetries > 0 || failover.DB != 3 ||
		!failover.DisableIdentity || failover.Protocol != 2 || failover.Username != "me" || failover.Password != "s3cret" {
		t.Errorf("sentinel: %+v", failover)
	}
	for _, text := range []string{"redis+cluster://a", "redis+sentinel://a/m"} {
		if _, err := New(Config{URL: text, TLS: settings}); err == nil {
			t.Errorf("%s: TLS settings are accepted and not used", text)
		}
	}
}

package store

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// throughRedis stores alice and reads her back from Redis.
func throughRedis(t *testing.T, s *Store, w *witness) {
	t.Helper()
	m, want := alice()
	s.Begin("k", want, w).Put(t.Context(), m, time.Minute, 0)
	s.memory.remove("k")
	if entry, level, _ := s.Begin("k", want, w).Get(t.Context()); level != Redis || entry.Member.ID != m.ID {
		t.Fatalf("got %v from %s; errors: %v", entry, level, w.errs)
	}
}

func TestServerKeepsEntriesForTheirLifeOnly(t *testing.T) {
	server := startRedis(t)
	s, w, client := newTestStore(t, Config{URL: server.url(), Timeout: time.Second}), &witness{}, server.client()
	throughRedis(t, s, w)
	commands := client.Info(t.Context(), "commandstats").Val()
	if ttl := client.PTTL(t.Context(), "k").Val(); ttl <= 50*time.Second || ttl > time.Minute {
		t.Errorf("its time to live is %v", ttl)
	}
	if text := client.Get(t.Context(), "k").Val(); !strings.HasPrefix(text, `{"v":3,"gen":"`) {
		t.Errorf("the value is %s", text)
	}
	if err := s.Delete(t.Context(), "k", w); err != nil {
		t.Error(err)
	}
	if n := client.Exists(t.Context(), "k").Val(); n != 0 {
		t.Error("the key is still there")
	}
	for _, name := range []string{"flush", "keys", "cmdstat_ttl", "client|setinfo", "cmdstat_get:"} {
		if strings.Contains(commands, name) {
			t.Errorf("%s was used", name)
		}
	}
}

func TestServerHoldsWrongTypes(t *testing.T) { t.Run("CI-025", serverHoldsWrongTypes) }

func serverHoldsWrongTypes(t *testing.T) {
	server := startRedis(t)
	s, w, client := newTestStore(t, Config{URL: server.url(), Timeout: time.Second}), &witness{}, server.client()
	_, want := alice()
	for range 2 * tripAfter {
		client.Del(t.Context(), "k")
		client.LPush(t.Context(), "k", "x")
		if entry, _, _ := s.Begin("k", want, w).Get(t.Context()); entry != nil {
			t.Fatalf("got %v", entry)
		}
		if n := client.Exists(t.Context(), "k").Val(); n != 0 {
			t.Error("the key is still there")
		}
	}
	w.expect(t, "look-ups", &w.lookups, slices.Repeat([]string{"redis invalid"}, 2*tripAfter)...)
	w.expect(t, "operations", &w.ops, slices.Repeat([]string{"get ok", "delete ok"}, 2*tripAfter)...)
	w.expect(t, "states", &w.states)
}

func TestServerThatFreezes(t *testing.T) { t.Run("RD-003", serverThatFreezes) }

func serverThatFreezes(t *testing.T) {
	const budget = 200 * time.Millisecond
	server := startRedis(t)
	s, w := newTestStore(t, Config{URL: server.url(), Timeout: budget}), &witness{}
	throughRedis(t, s, w)
	m, want := alice()

	server.signal(syscall.SIGSTOP)
	lookup := func(i int) time.Duration {
		start := time.Now()
		l := s.Begin(fmt.Sprint(i), want, w)
		l.Get(t.Context())
		l.Put(t.Context(), m, time.Minute, 0)
		return time.Since(start)
	}
	for i := range tripAfter {
		if took := lookup(i); took > budget+300*time.Millisecond { // the machine may be busy
			t.Errorf("look-up %d took %v", i, took)
		}
	}
	var all time.Duration
	for i := range 100 {
		all += lookup(i)
	}
	if all > 5*budget {
		t.Errorf("a hundred look-ups with an open breaker took %v", all)
	}
	w.expect(t, "states", &w.states, "down")

	server.signal(syscall.SIGCONT)
	eventually(t, "Redis is used again", func() bool {
		s.memory.remove("k")
		_, level, _ := s.Begin("k", want, w).Get(t.Context())
		return level == Redis
	})
	w.expect(t, "states", &w.states, "up")
}

func TestServerThatIsKilledAndComesBack(t *testing.T) {
	t.Run("RD-002 RD-014", serverThatIsKilledAndComesBack)
}

func serverThatIsKilledAndComesBack(t *testing.T) {
	server := startRedis(t)
	s, w := newTestStore(t, Config{URL: server.url(), Timeout: 200 * time.Millisecond}), &witness{}
	throughRedis(t, s, w)
	_, want := alice()

	server.kill()
	start := time.Now()
	for i := range 200 {
		s.Begin(fmt.Sprint(i), want, w).Get(t.Context())
	}
	if took := time.Since(start); took > 2*time.Second { // go-redis' defaults: 340 s
		t.Errorf("two hundred look-ups took %v", took)
	}
	w.expect(t, "states", &w.states, "down")

	server.start()
	back := time.Now()
	w.ops = nil
	eventually(t, "Redis is used again", func() bool {
		s.Begin("other", want, w).Get(t.Context())
		return len(w.ops) > 0
	})
	if took := time.Since(back); took > 5*time.Second {
		t.Errorf("that took %v", took)
	}
	w.expect(t, "states", &w.states, "up")
	throughRedis(t, s, w)
}

func TestServerThatRefusesWrites(t *testing.T) {
	for name, setting := range map[string][]any{
		"RD-005 a replica":             {"REPLICAOF", "127.0.0.1", "1"},
		"RD-007 a server that is full": {"CONFIG", "SET", "maxmemory", "1", "maxmemory-policy", "noeviction"},
	} {
		t.Run(name, func(t *testing.T) {
			server := startRedis(t)
			s, w, client := newTestStore(t, Config{URL: server.url(), Timeout: time.Second}), &witness{}, server.client()
			throughRedis(t, s, w)
			m, want := alice()
			if err := client.Do(t.Context(), setting...).Err(); err != nil {
				t.Fatal(err)
			}
			for range 2 * tripAfter {
				s.Begin("other", want, w).Put(t.Context(), m, time.Minute, 0)
				s.memory.remove("k")
				if _, level, _ := s.Begin("k", want, w).Get(t.Context()); level != Redis && level != Memory {
					t.Fatalf("it is not read: %v", w.errs)
				}
			}
			w.expect(t, "states", &w.states, "read_only")
		})
	}
}

func TestServerThatAnswersPingButNoRead(t *testing.T) {
	tests := map[string]struct {
		args  []string
		login string
	}{
		"RD-008 a replica that serves no stale data": {
			[]string{"--replica-serve-stale-data", "no", "--replicaof", "127.0.0.1", "1"}, "",
		},
		"RD-006 a user who may ping, but not read": {
			[]string{"--user", "kca", "on", ">pw", "~kca:*", "-@all", "+ping", "+set"}, "kca:pw@",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := startRedis(t, test.args...)
			s, w := newTestStore(t, Config{URL: "redis://" + test.login + server.address()}), &witness{}
			_, want := alice()
			foundDown(t, s, w)
			// long enough for two probes, neither of which may close the breaker
			for end := time.Now().Add(3 * probeEvery); time.Now().Before(end); pass(10 * time.Millisecond) {
				s.Begin("k", want, w).Get(t.Context())
			}
			w.expect(t, "states after probes", &w.states)
		})
	}
}

func TestServerWithUsers(t *testing.T) { t.Run("RD-006", serverWithUsers) }

func serverWithUsers(t *testing.T) {
	const password = "p@ss/w:rd#%?"
	server := startRedis(t, "--user", "kca", "on", ">"+password, "~kca:*", "-@all", "+getrange", "+set", "+unlink",
		"+xadd", "+xrange", "+xread",
		"--user", "default", "off")
	address := server.address()
	login := url.UserPassword("kca", password).String()
	keys := newTestKeys(t)
	m, want := alice()
	key := keys.Member(want.Tenant, want.Issuer, want.KCID)

	w := &witness{}
	s := newTestStore(t, Config{URL: "redis://" + login + "@" + address, Timeout: time.Second})
	s.Begin(key, want, w).Put(t.Context(), m, time.Minute, 0)
	s.memory.remove(key)
	if _, level, _ := s.Begin(key, want, w).Get(t.Context()); level != Redis {
		t.Fatalf("a user with these rights reads from %s: %v", level, w.errs)
	}
	if err := s.Delete(t.Context(), key, w); err != nil {
		t.Error(err)
	}

	for name, login := range map[string]string{"a wrong password": "kca:wr0ng@", "no user": "", "no rights": ""} {
		w := &witness{}
		s := newTestStore(t, Config{URL: "redis://" + login + address, Timeout: time.Second})
		foundDown(t, s, w)
		for _, err := range w.errs {
			if strings.Contains(err.Error(), "wr0ng") {
				t.Errorf("%s: the error has the password: %v", name, err)
			}
		}
	}
}

func TestServerOnASocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "r.sock")
	server := startRedis(t, "--unixsocket", socket)
	throughRedis(t, newTestStore(t, Config{URL: "unix://" + socket + "?db=2", Timeout: time.Second}), &witness{})
	if n := server.client().DBSize(t.Context()).Val(); n != 0 {
		t.Error("it is in database 0")
	}
}

func TestServerWithTLS(t *testing.T) { t.Run("RD-016", serverWithTLS) }

func serverWithTLS(t *testing.T) {
	certFile, keyFile, roots := selfSigned(t)
	port := freePort(t)
	startRedis(t, "--tls-port", strconv.Itoa(port), "--tls-cert-file", certFile, "--tls-key-file", keyFile,
		"--tls-ca-cert-file", certFile, "--tls-auth-clients", "no")
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	tests := map[string]struct {
		tls  *tls.Config
		good bool
	}{
		"the right root, and the certificate's name": {&tls.Config{RootCAs: roots, ServerName: "cache.test"}, true},
		"a name the certificate does not have":       {&tls.Config{RootCAs: roots, ServerName: "other.test"}, false},
		"the URL's host, which it does not have":     {&tls.Config{RootCAs: roots}, false},
		"the system's roots":                         {nil, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s, w := newTestStore(t, Config{URL: "rediss://" + address, TLS: test.tls, Timeout: 10 * time.Second}), &witness{}
			if test.good {
				throughRedis(t, s, w)
				return
			}
			foundDown(t, s, w)
			if !slices.ContainsFunc(w.errs, func(err error) bool { return strings.Contains(err.Error(), "certificate") }) {
				t.Errorf("the errors are %v", w.errs)
			}
		})
	}
}

func TestServerSeesNoGrowthWhileItHangs(t *testing.T) {
	server := startRedis(t)
	s := newTestStore(t, Config{URL: server.url(), Timeout: 20 * time.Millisecond})
	_, want := alice()
	s.Begin("k", want, nil).Get(t.Context())
	server.signal(syscall.SIGSTOP)
	for range 20 {
		s.Begin("k", want, nil).Get(t.Context())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*probeEvery)
	defer cancel()
	<-ctx.Done()
	if n := s.redis.client.PoolStats().TotalConns; n > 5 {
		t.Errorf("%d connections are open", n)
	}
	server.signal(syscall.SIGCONT)
}

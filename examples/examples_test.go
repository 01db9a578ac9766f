// Package examples_test runs the examples against the real thing.
package examples_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

const (
	issuer    = "https://sso.example.com/realms/main"
	tenant    = "acme"
	namespace = "members"

	// settled is how long a change may take to be seen by the other side.
	settled = 5 * time.Second
)

// missing ends a test that needs something which is not installed: it skips, or
// fails if KCA_REQUIRE_SERVERS=1, as package servers does.
func missing(t *testing.T) func(format string, args ...any) {
	t.Helper()
	if os.Getenv("KCA_REQUIRE_SERVERS") == "1" {
		return t.Fatalf
	}
	return t.Skipf
}

// environments are made once for all tests: they take the longest.
var (
	pythonEnvironment = sync.OnceValues(newPythonEnvironment)
	nodeEnvironment   = sync.OnceValues(newNodeEnvironment)
)

// madeDirs are removed when the tests have ended.
var madeDirs []string

func TestMain(m *testing.M) {
	status := m.Run()
	for _, dir := range madeDirs {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.Exit(status)
}

func makeDir() (string, error) {
	dir, err := os.MkdirTemp("", "kca-examples-")
	if err == nil {
		madeDirs = append(madeDirs, dir)
	}
	return dir, err
}

// python returns an interpreter that has all that the examples need: the one of
// the system, or that of a virtual environment.
func python(t *testing.T) string {
	t.Helper()
	interpreter, err := pythonEnvironment()
	if err != nil {
		missing(t)("SKIPPED: %v", err)
	}
	return interpreter
}

func newPythonEnvironment() (string, error) {
	system, err := exec.LookPath("python3")
	if err != nil {
		return "", errors.New("python3 is not installed: apt-get install python3 python3-venv")
	}
	ctx := context.Background() // it is no single test's
	if exec.CommandContext(ctx, system, "-c", "import cryptography, django, jwt, psycopg, redis").Run() == nil {
		return system, nil
	}
	dir, err := makeDir()
	if err != nil {
		return "", err
	}
	if out, err := exec.CommandContext(ctx, system, "-m", "venv", dir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("python3 makes no virtual environment: apt-get install python3-venv: %w\n%s", err, out)
	}
	interpreter := filepath.Join(dir, "bin", "python")
	cmd := exec.CommandContext(ctx, interpreter, "-m", "pip", "install", "--quiet",
		"-r", "python-cache/requirements.txt", "-r", "django/requirements.txt")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("pip cannot install what the examples need: %w\n%s", err, out)
	}
	return interpreter, nil
}

// peer is the Python module, in a process that answers one question a line.
type peer struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Scanner
}

// question is about one user with one token.
type question struct {
	Tenant   string `json:"tenant"`
	KCID     string `json:"kc_id"`
	SID      string `json:"sid"`
	IssuedAt int64  `json:"iat"`
}

// answer is what find returned: a member or not.
type answer struct {
	Found      bool           `json:"found"`
	ID         string         `json:"id"`
	Attributes map[string]any `json:"attributes"`
	Error      string         `json:"error"`
}

const peerProgram = `
import json, sys
sys.path.insert(0, "python-cache")
from member_cache import MemberCache, Unavailable
settings = json.loads(sys.argv[1])
issuer = settings.pop("issuer")
cache = MemberCache(refresh_every=0, **settings)
for line in sys.stdin:
    q = json.loads(line)
    try:
        m = cache.find(q["tenant"], issuer, q["kc_id"], sid=q["sid"], issued_at=q["iat"])
        a = {"found": m is not None, "id": m.id, "attributes": m.attributes} if m else {"found": False}
    except Unavailable as e:
        a = {"error": str(e)}
    print(json.dumps(a), flush=True)
`

func startPeer(t *testing.T, interpreter string, settings map[string]any) *peer {
	t.Helper()
	settings["namespace"] = namespace
	if settings["issuer"] == nil {
		settings["issuer"] = issuer
	}
	text, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), interpreter, "-c", peerProgram, string(text))
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // the program ends with its input
		_ = cmd.Wait()
	})
	return &peer{t: t, in: in, out: bufio.NewScanner(out)}
}

func (p *peer) ask(q question) answer {
	p.t.Helper()
	line, err := json.Marshal(q)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(p.in, "%s\n", line); err != nil {
		p.t.Fatal(err)
	}
	var a answer
	if !p.out.Scan() {
		p.t.Fatalf("the program ended: %v", p.out.Err())
	}
	if err := json.Unmarshal(p.out.Bytes(), &a); err != nil {
		p.t.Fatal(err)
	}
	return a
}

// node is a Go node. Each of them is a store of its own, so what one has is seen
// by another through Redis alone.
type node struct {
	t     *testing.T
	store *store.Store
	keys  *store.Keys
}

func startNode(t *testing.T, cfg store.Config) *node {
	t.Helper()
	s, err := store.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Destruct() })
	keys, err := store.NewKeys("", namespace)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, store: s, keys: keys}
	n.eventually("the node follows the log", func() bool { return s.Stats().Log.State == store.LogFollowed })
	return n
}

func (n *node) eventually(what string, holds func() bool) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), settled)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			n.t.Fatalf("never came true: %s", what)
		case <-tick.C:
		}
	}
}

func (n *node) begin(tenant, kcID string) *store.Lookup {
	want := store.Want{Tenant: tenant, Issuer: issuer, KCID: kcID, TTL: time.Minute}
	return n.store.Begin(n.keys.Member(tenant, issuer, kcID), want, nil)
}

// load writes the member until Python finds it: right after a flush of this node, what
// it loads counts as loaded before, until it has read its own event.
func (n *node) load(ctx context.Context, p *peer, token question) {
	n.t.Helper()
	n.eventually("Python finds what the node has written", func() bool {
		n.begin(tenant, "alice").Put(ctx, alice(), time.Minute, 0)
		return p.ask(token).Found
	})
}

// has tells whether the node would use what Redis has, asked like a node that has
// nothing in memory.
func (n *node) has(ctx context.Context, tenant, kcID string) bool {
	entry, _, result := n.begin(tenant, kcID).Get(ctx)
	return entry != nil && result == store.Hit
}

func alice() *member.Member {
	return &member.Member{
		KCID: "alice", Tenant: tenant, Issuer: issuer, Active: true, ID: "4711",
		Attributes: map[string]member.Value{
			"roles": member.List("editor", "viewer"), "plan": member.Text("gold <ü\u2028\x01>"),
		},
	}
}

// TestPythonReadsTheCacheAsANodeDoes lets one node write and flush, and compares
// what another node and the Python module make of it.
func TestPythonReadsTheCacheAsANodeDoes(t *testing.T) {
	redis := servers.Redis(t)
	cfg := store.Config{URL: redis.URL(), Timeout: time.Second}
	p := startPeer(t, python(t), map[string]any{"client": redis.URL()})
	agree(t, p, redis, cfg)
}

// TestPythonReadsTheEncryptedCacheAsANodeDoes is the same with secrets.
func TestPythonReadsTheEncryptedCacheAsANodeDoes(t *testing.T) {
	redis := servers.Redis(t)
	secrets := []string{"the secret that is written with", "the one that was before"}
	cfg := store.Config{URL: redis.URL(), Timeout: time.Second, Secrets: secrets}
	p := startPeer(t, python(t), map[string]any{"client": redis.URL(), "secrets": secrets})
	agree(t, p, redis, cfg)
}

func agree(t *testing.T, p *peer, redis *servers.RedisServer, cfg store.Config) {
	t.Helper()
	ctx, writer := t.Context(), startNode(t, cfg)
	token := question{Tenant: tenant, KCID: "alice", SID: "session", IssuedAt: time.Now().Unix() - 10}

	if a := p.ask(token); a.Found || a.Error != "" {
		t.Fatalf("an empty cache has %+v", a)
	}
	writer.load(ctx, p, token)
	a := p.ask(token)
	if roles, _ := a.Attributes["roles"].([]any); a.ID != "4711" || len(roles) != 2 || roles[1] != "viewer" ||
		a.Attributes["plan"] != alice().Attributes["plan"].Text() {
		t.Fatalf("what a node wrote is read as %+v", a)
	}
	for name, q := range map[string]question{
		"another tenant": {Tenant: "globex", KCID: "alice", SID: "session"},
		"another user":   {Tenant: tenant, KCID: "bob", SID: "session"},
	} {
		if a := p.ask(q); a.Found || a.Error != "" {
			t.Errorf("%s: %+v", name, a)
		}
	}

	for name, scope := range map[string]store.Scope{
		"all":                 {All: true},
		"tenant":              {Tenant: tenant},
		"member":              {Tenant: tenant, KCID: "alice"},
		"member by id":        {Tenant: tenant, MemberID: "4711"},
		"user":                {Issuer: issuer, KCID: "alice"},
		"user of any issuer":  {KCID: "alice"},
		"another tenant":      {Tenant: "globex"},
		"another member":      {Tenant: tenant, KCID: "bob"},
		"another id":          {Tenant: tenant, MemberID: "4712"},
		"another issuer's":    {Issuer: issuer + "/", KCID: "alice"},
		"another tenant's id": {Tenant: "globex", MemberID: "4711"},
	} {
		t.Run("flush of "+name, func(t *testing.T) {
			writer.load(ctx, p, token)
			// the entry stays where it is; what is judged is the log
			if _, err := writer.store.Flush(ctx, scope, nil); err != nil {
				t.Fatal(err)
			}
			other := startNode(t, cfg)
			if got, want := p.ask(token).Found, other.has(ctx, tenant, "alice"); got != want {
				t.Errorf("Python finds it: %v, a node finds it: %v", got, want)
			}
		})
	}

	t.Run("logout of a session", func(t *testing.T) {
		writer.load(ctx, p, token)
		out := store.Logout{Issuer: issuer, SID: "session", IssuedAt: time.Now(), Until: time.Now().Add(time.Hour)}
		if _, err := writer.store.Logout(ctx, out, nil); err != nil {
			t.Fatal(err)
		}
		other := token
		other.SID = "another"
		if p.ask(token).Found || !p.ask(other).Found {
			t.Error("not the session alone is refused")
		}
		token.SID = "another"
	})
	t.Run("logout of a user", func(t *testing.T) {
		now := time.Now()
		out := store.Logout{Issuer: issuer, Sub: "alice", IssuedAt: now, Until: now.Add(time.Hour)}
		if _, err := writer.store.Logout(ctx, out, nil); err != nil {
			t.Fatal(err)
		}
		later := token
		later.IssuedAt = now.Unix() + 1
		writer.load(ctx, p, later)
		if p.ask(token).Found {
			t.Error("a token of before the logout is good")
		}
		token = later
	})
	t.Run("a log that is lost", func(t *testing.T) {
		writer.load(ctx, p, token)
		before := writer.store.Stats().Log.Generation
		c := startNode(t, cfg) // keeps following, as the writer does
		redis.Command(t, "DEL", "kca:3:log")
		if p.ask(token).Found {
			t.Error("found though the log is lost")
		}
		c.eventually("both nodes are in one new generation", func() bool {
			first, second := writer.store.Stats().Log, c.store.Stats().Log
			return first.Generation != before && first.Generation != "" && first.Generation == second.Generation &&
				first.Position == second.Position
		})
		writer.load(ctx, p, token)
	})
}

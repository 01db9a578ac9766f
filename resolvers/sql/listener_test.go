package sqlresolver

import (
	"context"
	"crypto/rand"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// patience is how long a test waits for what should take milliseconds.
const patience = 20 * time.Second

// watching collects what a watcher is told.
type watching chan member.Change

func watch(t *testing.T, r *Resolver) watching {
	t.Helper()
	told := make(watching, 100_000)
	r.Watch(t.Context(), func(c member.Change) { told <- c })
	return told
}

// next returns the next change.
func (w watching) next(t *testing.T) member.Change {
	t.Helper()
	select {
	case c := <-w:
		return c
	case <-time.After(patience):
		t.Fatal("nothing is told")
		return member.Change{}
	}
}

// wantAll waits for everything to be flushed.
func (w watching) wantAll(t *testing.T) {
	t.Helper()
	if c := w.next(t); !c.All {
		t.Fatalf("got %+v, want all", c)
	}
}

// soFar returns what is told of that was notified up to now. run runs SQL.
func (w watching) soFar(t *testing.T, run func(sql string)) []member.Change {
	t.Helper()
	var changes []member.Change
	for range 2 { // changes of one batch are told in any order, so only the second is the end
		mark := member.Change{Tenant: "mark " + rand.Text()}
		send := func() { run(`select pg_notify('members_changed', '{"tenant":"` + mark.Tenant + `"}')`) }
		send()
		for c := w.next(t); c != mark; c = w.next(t) {
			if c.All {
				send() // or else it may have been told with all
			}
			if !strings.HasPrefix(c.Tenant, "mark ") {
				changes = append(changes, c)
			}
		}
	}
	return slices.Compact(sorted(changes)) // each may be taken before it comes again
}

// listening loads a resolver that listens at a database, or at another.
func listenTo(t *testing.T, dsn, listenDSN string) *Resolver {
	t.Helper()
	config := map[string]any{"driver": "postgres", "dsn": dsn, "query": columns + byKey, "invalidate_on_notify": "members_changed"}
	if listenDSN != "" {
		config["listen_dsn"] = listenDSN
	}
	return mustLoad(t, config)
}

// pgConn is a connection of the test's own.
func pgConn(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func exec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatal(err)
	}
}

const marker = "select pg_notify('members_changed', '{\"tenant\":\"the end\"}')"

var markerChange = member.Change{Tenant: "the end"}

func TestTimeFromCommitToCallback(t *testing.T) {
	dsn := postgresDSN(t, notifyTables)
	servers.PSQL(t, dsn, notifySQL(t, nil))
	told := watch(t, listenTo(t, dsn, ""))
	told.wantAll(t)
	conn := pgConn(t, dsn)
	took := make([]time.Duration, 200)
	for i := range took {
		exec(t, conn, "begin; insert into members values ('acme', 'k"+strconv.Itoa(i)+"', null)")
		start := time.Now() // before COMMIT is sent
		exec(t, conn, "commit")
		if c := told.next(t); c.KCID != "k"+strconv.Itoa(i) {
			t.Fatalf("got %+v", c)
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	t.Logf("from COMMIT to the callback: median %v, 99th percentile %v, longest %v", took[100], took[198], took[199])
	if took[100] > 50*time.Millisecond {
		t.Errorf("the median is %v", took[100])
	}
}

// What was notified while nobody listened is lost: everything is flushed.
func TestAKilledListenerCatchesUp(t *testing.T) {
	server := servers.StartPostgres(t)
	servers.PSQL(t, server.DSN, notifyTables)
	r := listenTo(t, server.DSN, "")
	told := watch(t, r)
	told.wantAll(t)
	const killed = "select count(pg_terminate_backend(pid)) from pg_stat_activity where query like 'listen %'"
	steps := []struct {
		name      string
		interrupt func()
	}{
		{"killed", func() {
			if n := servers.PSQL(t, server.DSN, killed); n != "1" {
				t.Fatalf("%s connections listen, want 1", n)
			}
		}},
		{"a restarted server", func() { server.Stop(); server.Start(t) }},
		{"a crashed server", func() { server.Kill(); server.Start(t) }},
	}
	for i, step := range steps {
		step.interrupt()
		told.wantAll(t)
		if got := told.soFar(t, func(sql string) { servers.PSQL(t, server.DSN, sql) }); len(got) != 0 {
			t.Errorf("%s: got %+v besides", step.name, got)
		}
		state := r.listener.state()
		if state.Failures <= uint64(i) {
			t.Errorf("%s: %d failures are counted", step.name, state.Failures)
		}
		state.Failures = 0 // how many attempts it took is chance
		if want := (listenerState{Channel: "members_changed", Connected: true, Connects: uint64(i) + 2, Notifications: uint64(i+1) * 2}); state != want {
			t.Errorf("%s: got %+v, want %+v", step.name, state, want)
		}
	}
}

// A connection may die without a word, as when a firewall forgets it.
func TestAListenerNoticesASilentDeath(t *testing.T) {
	server := servers.StartPostgres(t)
	l, err := newListener(listening{DSN: server.DSN, Channel: "members_changed"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Destruct() })
	if least := listenQuiet + listenPing; least > 10*time.Second {
		t.Errorf("it may take %v", least)
	}
	l.quiet = 50 * time.Millisecond
	told := make(watching, 100)
	go l.watch(t.Context(), zap.NewNop(), func(c member.Change) { told <- c })
	told.wantAll(t)
	// through several pings: the connection must outlive them
	pid, err := strconv.Atoi(servers.PSQL(t, server.DSN, "select pg_sleep(0.3); select pid from pg_stat_activity where query like 'listen %' or query like '%ping%' and pid <> pg_backend_pid()")[1:])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	told.wantAll(t)
	if n := l.state().Connects; n != 2 {
		t.Errorf("%d connections were made, want 2", n)
	}
}

// Configurations share a listener, and a reload does not interrupt it.
func TestListenersAreShared(t *testing.T) {
	dsn := postgresDSN(t, notifyTables)
	const count = "select count(*) from pg_stat_activity where query like 'listen %' and datname = current_database()"
	config := map[string]any{"driver": "postgres", "dsn": dsn, "query": columns + byKey, "invalidate_on_notify": "members_changed"}
	ctx, stop := context.WithCancel(t.Context())
	one := mustLoad(t, config)
	first := make(watching, 100)
	one.Watch(ctx, func(c member.Change) { first <- c })
	first.wantAll(t)

	config["max_open_conns"] = 3 // another pool, but the same database
	second := watch(t, mustLoad(t, config))
	second.wantAll(t) // it missed what came before it
	stop()
	if err := one.Cleanup(); err != nil {
		t.Fatal(err)
	}
	servers.PSQL(t, dsn, marker)
	if c := second.next(t); c != markerChange {
		t.Errorf("got %+v", c)
	}
	if n := servers.PSQL(t, dsn, count); n != "1" {
		t.Errorf("%s connections listen, want 1", n)
	}
	if len(first) != 0 {
		t.Errorf("one who does not watch any more is told %+v", <-first)
	}
}

// The connection ends with the last one who wants it, be that a watcher or a
// configuration.
func TestTheListenerEnds(t *testing.T) {
	dsn := postgresDSN(t, notifyTables)
	ctx, unload := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer unload()
	module, err := ctx.LoadModuleByID(member.Namespace+".sql", []byte(`{"driver":"postgres","dsn":"`+dsn+`","query":"`+columns+byKey+`","invalidate_on_notify":"members_changed"}`))
	if err != nil {
		t.Fatal(err)
	}
	watchCtx, stop := context.WithCancel(t.Context())
	defer stop()
	told := make(watching, 100)
	module.(*Resolver).Watch(watchCtx, func(c member.Change) { told <- c })
	told.wantAll(t)
	unload()
	servers.PSQL(t, dsn, marker)
	if c := told.next(t); c != markerChange {
		t.Errorf("got %+v after the configuration was unloaded", c)
	}
	stop()
	deadline := time.Now().Add(patience)
	for servers.PSQL(t, dsn, "select count(*) from pg_stat_activity where query like 'listen %' and datname = current_database()") != "0" {
		if time.Now().After(deadline) {
			t.Fatal("the connection stays")
		}
	}
	if n := len(listeners.All()); n != 0 {
		t.Errorf("%d listeners are left", n)
	}
}

// A callback that takes long holds up neither the connection nor others, and
// what waits for it is widened rather than kept.
func TestASlowWatcherHoldsUpNobody(t *testing.T) {
	dsn := postgresDSN(t, notifyTables)
	r := listenTo(t, dsn, "")
	slow, let := make(watching, 100_000), make(chan struct{})
	r.Watch(t.Context(), func(c member.Change) {
		<-let
		slow <- c
	})
	fast := watch(t, r)
	fast.wantAll(t)
	run := func(sql string) { servers.PSQL(t, dsn, sql) }
	run(`select pg_notify('members_changed', '{"tenant":"acme","kc_id":"k' || i || '"}') from generate_series(1, 5000) i`)
	fast.soFar(t, run)
	if len(slow) != 0 {
		t.Fatal("the slow one is told already")
	}
	close(let)
	got := slow.soFar(t, run)
	if len(got) > 3 || !slices.Contains(got, member.Change{Tenant: "acme"}) && !slices.Contains(got, member.Change{All: true}) {
		t.Errorf("the slow one is told %d changes", len(got))
	}
	if state := r.listener.state(); state.Notifications < 5004 || state.Widened == 0 {
		t.Errorf("got %+v", state)
	}
}

func TestUnreadableNotificationsFlushEverything(t *testing.T) {
	dsn := postgresDSN(t, notifyTables)
	r := listenTo(t, dsn, "")
	told := watch(t, r)
	told.wantAll(t)
	servers.PSQL(t, dsn, "notify members_changed, 'who knows'")
	told.wantAll(t)
	servers.PSQL(t, dsn, "notify members_changed")
	told.wantAll(t)
	if state, want := r.WatchState(), (member.WatchState{Connected: true, Changes: 2, Unreadable: 1}); state != want {
		t.Errorf("got %+v, want %+v", state, want)
	}
}

// One line when it fails, however often it tries, and one when it is back.
func TestListenersLogChangesOfState(t *testing.T) {
	server := servers.StartPostgres(t)
	core, logs := observer.New(zapcore.DebugLevel)
	l, err := newListener(listening{DSN: server.DSN, Channel: "members_changed"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Destruct() })
	told := make(watching, 100)
	go l.watch(t.Context(), zap.New(core), func(c member.Change) { told <- c })
	told.wantAll(t)
	server.Stop()
	for deadline := time.Now().Add(patience); l.state().Failures < 4; { // several attempts
		if time.Now().After(deadline) {
			t.Fatal("it does not try again")
		}
		runtime.Gosched()
	}
	server.Start(t)
	told.wantAll(t)
	var levels []string
	password := regexp.MustCompile(`:([^:@]+)@`).FindStringSubmatch(server.DSN)[1]
	for _, entry := range logs.All() {
		levels = append(levels, entry.Level.String())
		for _, field := range entry.Context {
			if strings.Contains(field.String, password) {
				t.Errorf("%s holds the password", field.Key)
			}
		}
	}
	if got := strings.Join(levels, " "); got != "info warn info" {
		t.Errorf("logged %s", got)
	}
}

func TestListeningNeedsPostgres(t *testing.T) {
	tests := map[string]struct {
		config map[string]any
		want   string
	}{
		"SQLite":                     {map[string]any{"driver": "sqlite", "dsn": "a.db", "query": columns + byKey, "invalidate_on_notify": "a"}, "only PostgreSQL notifies"},
		"a channel that is SQL":      {map[string]any{"driver": "postgres", "dsn": "host=h", "query": columns + byKey, "invalidate_on_notify": `a"; drop`}, "letters, digits and _"},
		"a channel that is too long": {map[string]any{"driver": "postgres", "dsn": "host=h", "query": columns + byKey, "invalidate_on_notify": strings.Repeat("a", 64)}, "63 characters"},
		"a listen_dsn for nothing":   {map[string]any{"driver": "postgres", "dsn": "host=h", "query": columns + byKey, "listen_dsn": "host=h"}, "listen_dsn: nothing listens"},
		"a listen_dsn that is none":  {map[string]any{"driver": "postgres", "dsn": "host=h", "query": columns + byKey, "invalidate_on_notify": "a", "listen_dsn": "host=h password=a hunter2secret"}, "listen_dsn: it is not a PostgreSQL URL"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, test.config)
			if err == nil {
				t.Fatal("accepted")
			}
			checkError(t, err, "hunter2secret", test.want)
			if n := len(databases.All()) + len(listeners.All()); n != 0 {
				t.Errorf("%d shares are left behind", n)
			}
		})
	}
	r := mustLoad(t, map[string]any{"driver": "postgres", "dsn": "host=h", "query": columns + byKey})
	r.Watch(t.Context(), func(member.Change) { t.Error("told without a channel") })
	if state := r.WatchState(); state != (member.WatchState{}) || r.Watches() {
		t.Error("it listens to nothing")
	}
}

// Behind a bouncer the queries go one way and LISTEN another.
func TestListenDSN(t *testing.T) {
	dsn := postgresDSN(t, notifyTables)
	told := watch(t, listenTo(t, "postgres://u@127.0.0.1:1/bouncer", dsn))
	told.wantAll(t)
}

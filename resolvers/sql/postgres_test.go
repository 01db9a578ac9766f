package sqlresolver

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

const postgresTable = `
	create type rank as enum ('low', 'high');
	create table members (
		kc_id uuid not null, tenant text not null, active boolean, id bigint not null,
		email text, roles text[], team jsonb, level real, score numeric, rank rank, born date, joined timestamptz,
		seen timestamp, device uuid, code char(4), photo bytea, settings json, primary key (kc_id, tenant));
	insert into members values
		('` + alice + `', 'acme', true, 41, 'a@acme.example', '{editor,"with, comma","NULL",""}', '["x",1]', 0.1, 12.50, 'high', '1990-02-03',
			'2026-01-02 03:04:05.5+02', '2026-01-02 03:04:05', '` + bob + `', 'ab', null, null),
		('` + bob + `', 'acme', null, 42, null, '{}', '"single"', null, null, null, null, null, null, null, null, null, null);
`

// postgresDSN returns an empty database with the statements applied.
func postgresDSN(t *testing.T, statements string) string {
	t.Helper()
	dsn := servers.Postgres(t)
	servers.PSQL(t, dsn, statements)
	return dsn
}

func TestPostgresFindsTheMember(t *testing.T) {
	dsn := postgresDSN(t, postgresTable)
	r := mustLoad(t, map[string]any{"driver": "postgres", "dsn": dsn, "query": "select * from members" + byKey})

	got, err := ask(t, r, alice, "acme")
	if err != nil {
		t.Fatal(err)
	}
	checkMember(t, got, &member.Member{
		KCID: alice, Tenant: "acme", Active: true, ID: "41",
		Attributes: map[string]member.Value{
			"email": member.Text("a@acme.example"), "roles": member.List("editor", "with, comma", "NULL", ""),
			"team": member.List("x", "1"), "level": member.Text("0.1"), "score": member.Text("12.50"), "rank": member.Text("high"),
			"born": member.Text("1990-02-03"), "joined": member.Text("2026-01-02T01:04:05.5Z"), "seen": member.Text("2026-01-02T03:04:05Z"),
			"device": member.Text(bob), "code": member.Text("ab  "),
		},
	})
	got, err = ask(t, r, bob, "acme")
	if err != nil {
		t.Fatal(err)
	}
	checkMember(t, got, &member.Member{
		KCID: bob, Tenant: "acme", ID: "42",
		Attributes: map[string]member.Value{"roles": member.List(), "team": member.Text("single")},
	})
	if _, err := ask(t, r, alice, "Acme"); !errors.Is(err, member.ErrUnknown) {
		t.Errorf("got %v, want ErrUnknown", err)
	}
}

// Keycloak's ids of federated users are no uuids, and a client may put anything
// into the tenant's header: where the column has another type that is nobody,
// not a failure of the database.
func TestPostgresValuesThatCannotBeInTheColumn(t *testing.T) {
	dsn := postgresDSN(t, postgresTable+`
		create table numbered (kc_id uuid, tenant smallint, active boolean, id uuid);
		insert into numbered values ('`+alice+`', 7, true, '`+bob+`');`)
	r := mustLoad(t, map[string]any{"driver": "postgres", "dsn": dsn, "query": "select * from numbered" + byKey})
	got, err := ask(t, r, alice, "7")
	if err != nil {
		t.Fatal(err)
	}
	checkMember(t, got, &member.Member{KCID: alice, Tenant: "7", Active: true, ID: bob})
	for _, q := range [][2]string{{"f:77:alice", "7"}, {"' OR '1'='1", "7"}, {alice, "acme"}, {alice, "70000"}, {"", "7"}, {alice, ""}} {
		if _, err := ask(t, r, q[0], q[1]); !errors.Is(err, member.ErrUnknown) {
			t.Errorf("%q: got %v, want ErrUnknown", q, err)
		}
	}

	// but a fault of the query with good values is a failure
	r = mustLoad(t, map[string]any{"driver": "postgres", "dsn": dsn, "query": "select *, 'x'::text::int as n from numbered" + byKey})
	_, err = ask(t, r, alice, "7")
	if err == nil || errors.Is(err, member.ErrUnknown) {
		t.Fatalf("got %v", err)
	}
	checkError(t, err, alice, "SQLSTATE 22P02")
}

func TestPostgresRows(t *testing.T) {
	dsn := postgresDSN(t, postgresTable)
	const start, end = "select kc_id, tenant, true as active, id", " from members" + byKey
	tests := map[string]struct {
		query string
		want  map[string]member.Value
		error string
	}{
		"an array of an enum, with its cast": {start + ", array['low'::rank]::text[] as roles" + end, map[string]member.Value{"roles": member.List("low")}, ""},
		"an array of numbers":                {start + ", array[1,2] as n" + end, map[string]member.Value{"n": member.List("1", "2")}, ""},
		"an array from a look-up":            {start + ", (select array_agg(m.email) from members m where m.email is not null) as mails" + end, map[string]member.Value{"mails": member.List("a@acme.example")}, ""},
		"a list named with brackets":         {start + `, '["a"]'::text as "l[]"` + end, map[string]member.Value{"l": member.List("a")}, ""},
		"JSON that is true":                  {start + ", 'true'::jsonb as j" + end, map[string]member.Value{"j": member.Text("true")}, ""},
		"JSON that is null":                  {start + ", 'null'::jsonb as j" + end, nil, ""},
		"a truth":                            {start + ", id = 41 as b" + end, map[string]member.Value{"b": member.Text("true")}, ""},
		"a time without end":                 {start + ", 'infinity'::timestamptz as t" + end, map[string]member.Value{"t": member.Text("infinity")}, ""},
		"an array that holds NULL":           {start + ", array['a', null] as roles" + end, nil, "column roles is an array that holds NULL; select array_remove"},
		"an array of arrays":                 {start + ", array[array['a'], array['b']] as roles" + end, nil, "column roles is an array of arrays"},
		"a JSON object":                      {start + `, '{"a":1}'::jsonb as j` + end, nil, "column j is a JSON object"},
		"bytes":                              {start + `, '\x00'::bytea as photo` + end, nil, "column photo is binary"},
		"an id from JSON":                    {"select kc_id, tenant, true as active, '1'::jsonb as id" + end, nil, "column id has the type JSONB"},
		"an id from an array":                {"select kc_id, tenant, true as active, array[id] as id" + end, nil, "column id is an array"},
		"active from a number":               {"select kc_id, tenant, 2 as active, id" + end, nil, "column active is neither"},
		"a column without a name":            {start + ", id + 1" + end, nil, "column 5 of the query has no usable name"},
		"two columns of one name":            {start + ", id" + end, nil, `two columns called "id"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := mustLoad(t, map[string]any{"driver": "postgres", "dsn": dsn, "query": test.query})
			got, err := ask(t, r, alice, "acme")
			if test.error != "" {
				if err == nil || errors.Is(err, member.ErrUnknown) {
					t.Fatalf("got %+v, %v", got, err)
				}
				checkError(t, err, "", test.error)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkMember(t, got, &member.Member{KCID: alice, Tenant: "acme", Active: true, ID: "41", Attributes: test.want})
		})
	}
}

func TestPostgresErrors(t *testing.T) {
	dsn := postgresDSN(t, postgresTable+"insert into members (kc_id, tenant, id) values ('"+bob+"', 'other', 1);")
	wrongPassword, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	wrongPassword.User = url.UserPassword("kca_nobody", "hunter2secret")
	tests := map[string]struct{ dsn, query, want string }{
		"a table that is missing":   {dsn, "select * from users" + byKey, `SQLSTATE 42P01: relation "users" does not exist`},
		"a column that is missing":  {dsn, "select nope from members" + byKey, "SQLSTATE 42703: column"},
		"a mistake in the query":    {dsn, "select from from" + byKey, "SQLSTATE 42601: syntax error"},
		"a type that does not fit":  {dsn, "select * from members where kc_id = :kc_id and tenant = :tenant and id = email", "SQLSTATE 42883: operator does not exist"},
		"a value in the error":      {dsn, "select (:kc_id::text || 'x')::int from members where tenant = :tenant", "SQLSTATE 22P02: a value does not fit"},
		"a division by zero":        {dsn, "select 1/(id-id) from members" + byKey, "SQLSTATE 22012"},
		"a query that tries writes": {dsn, "with x as (insert into members (kc_id, tenant, id) values (:kc_id, :tenant, 1) returning *) select * from x", "SQLSTATE 25006"},
		"a user who may not log in": {wrongPassword.String(), "select * from members" + byKey, "connecting failed: SQLSTATE 28"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := mustLoad(t, map[string]any{"driver": "postgres", "dsn": test.dsn, "query": test.query})
			_, err := ask(t, r, alice, "acme")
			if err == nil || errors.Is(err, member.ErrUnknown) {
				t.Fatalf("got %v", err)
			}
			checkError(t, err, alice, "querying the members: ", test.want)
			checkError(t, err, "hunter2secret")
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("%q has several lines", err)
			}
		})
	}

	r := mustLoad(t, map[string]any{"driver": "postgres", "dsn": dsn, "query": "select * from members where kc_id = :kc_id and :tenant <> ''"})
	if _, err := ask(t, r, bob, "acme"); !errors.Is(err, member.ErrAmbiguous) {
		t.Errorf("got %v, want ErrAmbiguous", err)
	}
}

func TestPostgresHonoursTheDeadline(t *testing.T) {
	dsn := postgresDSN(t, postgresTable)
	r := mustLoad(t, map[string]any{"driver": "postgres", "dsn": dsn, "query": "select *, pg_sleep(30)::text as nap from members" + byKey, "max_open_conns": 1})
	for range 2 { // the second one also needs the connection of the first
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		start := time.Now()
		_, err := r.Resolve(ctx, member.Query{KCID: alice, Tenant: "acme"})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline's error", err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
	}
}

func TestPostgresConcurrently(t *testing.T) {
	dsn := postgresDSN(t, postgresTable)
	one := mustLoad(t, map[string]any{"driver": "postgres", "dsn": dsn, "query": "select * from members" + byKey, "max_open_conns": 4})
	two := mustLoad(t, map[string]any{"driver": "postgres", "dsn": dsn, "query": "select kc_id, tenant, active, id from members" + byKey, "max_open_conns": 4})
	if one.place.one != two.place.one {
		t.Fatal("two queries do not share the pool")
	}
	var group sync.WaitGroup
	for i := range 24 {
		group.Go(func() {
			for range 10 {
				kcID := []string{alice, bob}[i%2]
				m, err := []*Resolver{one, two}[i/2%2].Resolve(t.Context(), member.Query{KCID: kcID, Tenant: "acme"})
				if err != nil || m.KCID != kcID {
					t.Errorf("asked for %s, got %v, %v", kcID, m, err)
					return
				}
			}
		})
	}
	group.Wait()
	if open := one.place.one.db.Stats().OpenConnections; open > 4 {
		t.Errorf("%d connections are open, at most 4 are allowed", open)
	}
}

// Connections cut, tables altered and servers restarted between two look-ups
// must not cost one.
func TestPostgresAfterAnInterruption(t *testing.T) {
	server := servers.StartPostgres(t)
	servers.PSQL(t, server.DSN, postgresTable)
	r := mustLoad(t, map[string]any{"driver": "postgres", "dsn": server.DSN, "query": "select * from members" + byKey, "max_open_conns": 3})
	warm := func() {
		var group sync.WaitGroup
		for range 3 { // so that several idle connections are there to be cut
			group.Go(func() { _, _ = ask(t, r, alice, "acme") })
		}
		group.Wait()
	}
	steps := []struct {
		name      string
		interrupt func()
	}{
		{"nothing", func() {}},
		{"a table altered", func() { servers.PSQL(t, server.DSN, "alter table members add column extra text default 'e'") }},
		{"the connections cut", func() {
			servers.PSQL(t, server.DSN, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = '"+applicationName+"'")
		}},
		{"a restart", func() { server.Stop(); server.Start(t) }},
		{"a crash", func() { server.Kill(); server.Start(t) }},
	}
	for _, step := range steps {
		warm()
		step.interrupt()
		if _, err := ask(t, r, alice, "acme"); err != nil {
			t.Errorf("after %s: %v", step.name, err)
		}
	}
	server.Stop()
	if _, err := ask(t, r, alice, "acme"); err == nil || errors.Is(err, member.ErrUnknown) {
		t.Errorf("with the server down: %v", err)
	}
}

// A password file is read for each connection, so that one can be rotated
// without a reload.
func TestPostgresReadsThePasswordFileAnew(t *testing.T) {
	server := servers.StartPostgres(t)
	servers.PSQL(t, server.DSN, postgresTable+"create role reader login password 'first'; grant select on members to reader;")
	dsn, err := url.Parse(server.DSN)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pgpass")
	write := func(password string) {
		if err := os.WriteFile(file, []byte("*:*:*:reader:"+password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	dsn.User = url.User("reader")
	dsn.RawQuery = url.Values{"passfile": {file}, "sslmode": {"disable"}}.Encode()
	r := mustLoad(t, map[string]any{"driver": "postgres", "dsn": dsn.String(), "query": "select * from members" + byKey})
	if _, err := ask(t, r, alice, "acme"); err != nil {
		t.Fatal(err)
	}
	servers.PSQL(t, server.DSN, "alter role reader password 'second'; select pg_terminate_backend(pid) from pg_stat_activity where usename = 'reader'")
	_, wrong := ask(t, r, alice, "acme")
	write("second")
	if _, err := ask(t, r, alice, "acme"); err != nil {
		t.Errorf("with the new password: %v", err)
	}
	if wrong == nil {
		t.Skip("this server asks for no password")
	}
	checkError(t, wrong, "first", "SQLSTATE 28P01")
}

package sqlresolver

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// The collation is that of an ordinary installation: it ignores letter case,
// accents and blanks at the end.
const mysqlTable = `
	create table members (
		kc_id varchar(255) not null, tenant varchar(63) not null, active boolean, id bigint unsigned not null,
		email varchar(100), roles json, level float, score decimal(10,2), size double, kind enum('low','high'), flags set('a','b'),
		born date, joined timestamp null, seen datetime(3), device uuid, code char(4), photo blob, uid binary(16), deleted bit(1), early date);
	set time_zone = '+02:00';
	set sql_mode = '';
	insert into members values
		('` + alice + `', 'acme', true, 18446744073709551615, 'a@acme.example', '["editor","x, y"]', 0.1, 12.50, 1e30, 'high', 'a,b', '1990-02-03',
			'2026-01-02 03:04:05', '2026-01-02 03:04:05.5', '` + bob + `', 'ab', null, null, b'1', '0000-00-00'),
		('` + bob + `', 'acme', null, 42, null, '[]', null, null, null, null, null, null, null, null, null, null, null, null, null, null);`

func mysqlDSN(t *testing.T, statements string) string {
	t.Helper()
	dsn := servers.MariaDB(t)
	servers.MariaDBSQL(t, dsn, statements)
	return dsn
}

func TestMySQLFindsTheMember(t *testing.T) {
	dsn := mysqlDSN(t, mysqlTable)
	r := mustLoad(t, map[string]any{"driver": "mysql", "dsn": dsn + "?parseTime=false&loc=Local&interpolateParams=true&multiStatements=true", "query": "select * from members" + byKey})
	for range 2 { // prepared, and prepared already
		got, err := ask(t, r, alice, "acme")
		if err != nil {
			t.Fatal(err)
		}
		checkMember(t, got, &member.Member{
			KCID: alice, Tenant: "acme", Active: true, ID: "18446744073709551615",
			Attributes: map[string]member.Value{
				"email": member.Text("a@acme.example"), "roles": member.List("editor", "x, y"), "level": member.Text("0.1"), "score": member.Text("12.50"),
				"size": member.Text("1e+30"), "kind": member.Text("high"), "flags": member.Text("a,b"), "born": member.Text("1990-02-03"),
				"joined": member.Text("2026-01-02T01:04:05Z"), "seen": member.Text("2026-01-02T03:04:05.5Z"), "device": member.Text(bob),
				"code": member.Text("ab"), "deleted": member.Text("1"),
			},
		})
	}
	got, err := ask(t, r, bob, "acme")
	if err != nil {
		t.Fatal(err)
	}
	checkMember(t, got, &member.Member{KCID: bob, Tenant: "acme", ID: "42", Attributes: map[string]member.Value{"roles": member.List()}})
	for _, q := range [][2]string{{alice, "b"}, {"f:77:alice", "acme"}, {"' OR '1'='1", "acme"}, {`\' OR 1=1 -- `, "acme"}, {"", ""}} {
		if got, err := ask(t, r, q[0], q[1]); !errors.Is(err, member.ErrUnknown) || got != nil {
			t.Errorf("%q: %v, %v, want ErrUnknown", q, got, err)
		}
	}
}

// A case-insensitive collation must not make two users one, nor one's row an
// obstacle for another.
func TestMySQLCollationsDoNotMakeTwoUsersOne(t *testing.T) {
	dsn := mysqlDSN(t, `create table members (kc_id varchar(255), tenant varchar(63), active bool, id int);
		insert into members values ('alice', 'acme', true, 1), ('ALICE', 'acme', true, 2), ('alice ', 'acme', true, 3), ('alice', 'ACME', true, 4), ('carol', 'acme', true, 5)`)
	r := mustLoad(t, map[string]any{"driver": "mysql", "dsn": dsn, "query": "select * from members" + byKey})
	if n := servers.MariaDBSQL(t, dsn, "select count(*) from members where kc_id = 'Alice' and tenant = 'acme'"); n != "4" {
		t.Fatalf("the collation takes %s for one, want 4", n)
	}
	tests := map[[2]string]string{
		{"alice", "acme"}: "1", {"ALICE", "acme"}: "2", {"alice ", "acme"}: "3", {"alice", "ACME"}: "4", {"carol", "acme"}: "5",
		{"Alice", "acme"}: "", {"Carol", "acme"}: "", {"carol", "Acme"}: "", {"carol ", "acme"}: "",
	}
	for q, want := range tests {
		got, err := ask(t, r, q[0], q[1])
		switch {
		case want == "" && !errors.Is(err, member.ErrUnknown):
			t.Errorf("%q: got %v, %v, want ErrUnknown", q, got, err)
		case want != "" && (err != nil || got.ID != want || got.KCID != q[0] || got.Tenant != q[1]):
			t.Errorf("%q: got %+v, %v, want id %s", q, got, err, want)
		}
	}
	servers.MariaDBSQL(t, dsn, "insert into members values ('carol', 'acme', true, 6)")
	if _, err := ask(t, r, "carol", "acme"); !errors.Is(err, member.ErrAmbiguous) {
		t.Errorf("got %v, want ErrAmbiguous", err)
	}
	// an accent is not made up for: the row is another's, and is seen to be
	if got, err := ask(t, r, "cárol", "acme"); err == nil && got.KCID == "cárol" {
		t.Errorf("got %+v", got)
	}
}

func TestMySQLRows(t *testing.T) {
	dsn := mysqlDSN(t, mysqlTable)
	const start, end = "select kc_id, tenant, true as active, 41 as id", " from members" + byKey
	tests := map[string]struct {
		query string
		want  map[string]member.Value
		error string
	}{
		"a list from an aggregate":   {start + ", (select json_arrayagg(tenant) from members) as `all[]`" + end, map[string]member.Value{"all": member.List("acme", "acme")}, ""},
		"active as a bit":            {"select kc_id, tenant, deleted as active, 41 as id" + end, nil, ""},
		"active as text":             {"select kc_id, tenant, 'true' as active, 41 as id" + end, nil, ""},
		"active as another number":   {"select kc_id, tenant, 2 as active, 41 as id" + end, nil, "column active is neither"},
		"an id in binary":            {"select kc_id, tenant, true as active, unhex('00ff') as id" + end, nil, "column id must be text, a uuid or an integer"},
		"a kc_id in binary":          {"select unhex(replace(kc_id, '-', '')) as kc_id, tenant, true as active, 41 as id" + end, nil, "column kc_id must be text"},
		"an id as a fraction":        {"select kc_id, tenant, true as active, 4.1e0 as id" + end, nil, "column id must be"},
		"an attribute in binary":     {start + ", unhex('00ff') as photo" + end, nil, "column photo is binary"},
		"a list that is none":        {start + ", 'a,b' as `l[]`" + end, nil, "column l is to be a list"},
		"no id":                      {"select kc_id, tenant, true as active" + end, nil, "no column id; select"},
		"a time of day":              {start + ", time '10:11:12' as t" + end, map[string]member.Value{"t": member.Text("10:11:12")}, ""},
		"text with other characters": {start + ", 'ü€😀' as note" + end, map[string]member.Value{"note": member.Text("ü€😀")}, ""},
		"a quote of ANSI":            {start + `, "text" as note` + end, map[string]member.Value{"note": member.Text("text")}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := mustLoad(t, map[string]any{"driver": "mysql", "dsn": dsn, "query": test.query})
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

// How quotes are read must not depend on how the server is set up, or a
// parameter could be taken for text and text for a parameter.
func TestMySQLSessionsAreOurs(t *testing.T) {
	dsn := mysqlDSN(t, mysqlTable)
	r := mustLoad(t, map[string]any{"driver": "mysql", "dsn": dsn + "?sql_mode=%27ANSI_QUOTES,NO_BACKSLASH_ESCAPES%27&time_zone=%27-05:00%27", "query": `select kc_id, tenant, active, 1 as id, joined, "\" :x" as q from members` + byKey})
	got, err := ask(t, r, alice, "acme")
	if err != nil {
		t.Fatal(err)
	}
	checkMember(t, got, &member.Member{KCID: alice, Tenant: "acme", Active: true, ID: "1", Attributes: map[string]member.Value{
		"q": member.Text(`" :x`), "joined": member.Text("2026-01-02T01:04:05Z"),
	}})
}

func TestMySQLErrors(t *testing.T) {
	dsn := mysqlDSN(t, mysqlTable+`
delimiter //
create function sneak(k varchar(255)) returns int modifies sql data begin insert into members (kc_id, tenant, id) values (k, 'x', 1); return 1; end //`)
	user, rest, _ := strings.Cut(dsn, ":")
	password, rest, _ := strings.Cut(rest, "@")
	tests := map[string]struct{ dsn, query, want string }{
		"a table that is missing":   {dsn, "select * from users" + byKey, "error 1146: Table"},
		"a column that is missing":  {dsn, "select nope from members" + byKey, "error 1054: Unknown column"},
		"a mistake in the query":    {dsn, "select from from" + byKey, "error 1064: You have an error"},
		"a query that tries writes": {dsn, "select sneak(:kc_id) as id, :tenant as t", "error 1792: Cannot execute statement in a READ ONLY transaction"},
		"a wrong password":          {user + ":hunter2secret@" + rest, "select * from members" + byKey, "error 1045: Access denied"},
		"a database that is absent": {user + ":" + password + "@" + strings.Split(rest, "/")[0] + "/absent", "select * from members" + byKey, "error 1049: Unknown database"},
		"a closed port":             {"u:hunter2secret@tcp(127.0.0.1:1)/d", "select * from members" + byKey, "connection refused"},
		"no TLS":                    {dsn + "?tls=true", "select * from members" + byKey, "the server offers no TLS"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := mustLoad(t, map[string]any{"driver": "mysql", "dsn": test.dsn, "query": test.query})
			_, err := ask(t, r, alice, "acme")
			if err == nil || errors.Is(err, member.ErrUnknown) {
				t.Fatalf("got %v", err)
			}
			checkError(t, err, alice, "querying the members: ", test.want)
			checkError(t, err, "hunter2secret")
			checkError(t, err, password)
		})
	}
	if n := servers.MariaDBSQL(t, dsn, "select count(*) from members"); n != "2" {
		t.Errorf("there are %s members: a query has written", n)
	}
}

// Connections cut, tables altered and servers restarted between two look-ups
// must not cost one.
func TestMySQLAfterAnInterruption(t *testing.T) {
	server := servers.StartMariaDB(t)
	servers.MariaDBSQL(t, server.DSN, mysqlTable)
	r := mustLoad(t, map[string]any{"driver": "mysql", "dsn": server.DSN, "query": "select * from members" + byKey, "max_open_conns": 3})
	steps := []struct {
		name      string
		interrupt func()
	}{
		{"nothing", func() {}},
		{"a table altered", func() {
			servers.MariaDBSQL(t, server.DSN, "alter table members add column extra text default 'e'")
		}},
		{"the connections cut", func() {
			for id := range strings.FieldsSeq(servers.MariaDBSQL(t, server.DSN, "select id from information_schema.processlist where id <> connection_id() and user = 'kca'")) {
				servers.MariaDBSQL(t, server.DSN, "kill "+id)
			}
		}},
		{"a restart", func() { server.Stop(); server.Start(t) }},
		{"a crash", func() { server.Kill(); server.Start(t) }},
	}
	for _, step := range steps {
		var group sync.WaitGroup
		for range 3 { // so that several idle connections are there to be cut
			group.Go(func() { _, _ = ask(t, r, alice, "acme") })
		}
		group.Wait()
		step.interrupt()
		if _, err := ask(t, r, alice, "acme"); err != nil {
			t.Errorf("after %s: %v", step.name, err)
		}
	}
}

// A query is prepared once on a connection, not each time it is put.
func TestMySQLPreparesOnce(t *testing.T) {
	dsn := mysqlDSN(t, mysqlTable)
	r := mustLoad(t, map[string]any{
		"driver": "mysql", "dsn": dsn, "max_open_conns": 1,
		"query": "select kc_id, tenant, active, id, (select variable_value from information_schema.session_status where variable_name = 'COM_STMT_PREPARE') as prepared from members" + byKey,
	})
	for range 5 {
		got, err := ask(t, r, alice, "acme")
		if err != nil {
			t.Fatal(err)
		}
		if n := got.Attributes["prepared"].Text(); n != "1" {
			t.Fatalf("%s statements were prepared", n)
		}
	}
}

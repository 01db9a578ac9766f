package sqlresolver

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

const notifyTables = `
	create table members (tenant text, kc_id text, id bigint, active boolean default true, plan text, settings json, last_login timestamptz);
	create index on members (tenant);`

// notifySQL returns the file of triggers with other names than its own.
func notifySQL(t *testing.T, names map[string]string) string {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("..", "..", "deploy", "postgres", "notify.sql"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(file)
	for name, value := range names {
		setting := regexp.MustCompile(`(?m)^set kca\.` + name + ` = '[^']*';`)
		if len(setting.FindAllString(text, -1)) != 1 {
			t.Fatalf("the file does not set %s once", name)
		}
		text = setting.ReplaceAllLiteralString(text, "set kca."+name+" = '"+value+"';")
	}
	return text
}

func TestTriggersTellWhatHasChanged(t *testing.T) {
	rows := func(n int) string {
		return "insert into members (tenant, kc_id, id) select 'acme', 'k' || i, i from generate_series(1, " + strconv.Itoa(n) + ") i"
	}
	k := func(tenant, kcID, id string) []member.Change {
		return []member.Change{{Tenant: tenant, ID: id}, {Tenant: tenant, KCID: kcID}}
	}
	all := []member.Change{{All: true}}
	tests := map[string]struct {
		before, statement string
		want              []member.Change
	}{
		"an insert":                      {"", rows(1), k("acme", "k1", "1")},
		"an insert of nothing":           {"", rows(0), nil},
		"an update":                      {rows(2), "update members set active = false where id = 1", k("acme", "k1", "1")},
		"a delete":                       {rows(2), "delete from members where id = 2", k("acme", "k2", "2")},
		"a user who moves":               {rows(1), "update members set tenant = 'b'", slices.Concat(k("acme", "k1", "1"), k("b", "k1", "1"))},
		"an account that changes hands":  {rows(1), "update members set kc_id = 'l'", []member.Change{{Tenant: "acme", ID: "1"}, {Tenant: "acme", KCID: "k1"}, {Tenant: "acme", KCID: "l"}}},
		"a whole tenant":                 {rows(100_000), "update members set plan = 'gold'", []member.Change{{Tenant: "acme"}}},
		"many of one tenant, one other":  {rows(200), "insert into members (tenant, kc_id, id) select 'acme', 'l' || i, i from generate_series(1, 101) i union all select 'b', 'k1', 1", slices.Concat([]member.Change{{Tenant: "acme"}}, k("b", "k1", "1"))},
		"many tenants":                   {"", "insert into members select 't' || i, 'k', i from generate_series(1, 101) i", all},
		"a truncate":                     {rows(2), "truncate members", all},
		"a user without an account":      {"", "insert into members values ('acme', null, 7)", []member.Change{{Tenant: "acme", ID: "7"}}},
		"a row without a tenant":         {"", "insert into members values (null, 'k', 7)", []member.Change{{KCID: "k"}}},
		"a row without tenant and user":  {"", "insert into members values (null, null, 7)", all},
		"a row with a tenant alone":      {"", "insert into members values ('acme', null, null)", []member.Change{{Tenant: "acme"}}},
		"a name that is no JSON":         {"", `insert into members values ('a"\', E'k\n', 7)`, []member.Change{{Tenant: `a"\`, ID: "7"}, {Tenant: `a"\`, KCID: "k\n"}}},
		"a name beyond a payload's size": {"", "insert into members values ('acme', repeat('k', 9000), 7)", all},
		"a time of log-in":               {rows(2), "update members set last_login = now()", nil},
		"a time of log-in, and more":     {rows(2), "update members set last_login = now(), plan = 'x' where id = 1", k("acme", "k1", "1")},
		"several statements":             {rows(2), "begin; update members set plan = 'x' where id = 1; update members set plan = 'y' where id = 1; update members set plan = 'y' where id = 2; commit", []member.Change{{Tenant: "acme", ID: "1"}, {Tenant: "acme", KCID: "k1"}, {Tenant: "acme", ID: "2"}, {Tenant: "acme", KCID: "k2"}}},
		"what is rolled back":            {rows(2), "begin; delete from members; rollback", nil},
	}
	app := uniqueRole()
	dsn := postgresDSN(t, notifyTables+"create role "+app+"; grant insert, update, delete, select, truncate on members to "+app)
	triggers := notifySQL(t, map[string]string{"ignored_columns": "last_login"})
	servers.PSQL(t, dsn, triggers)
	servers.PSQL(t, dsn, triggers) // must be possible again and again
	told := watch(t, listenTo(t, dsn, ""))
	told.wantAll(t)
	conn := pgConn(t, dsn)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			exec(t, conn, "set session_replication_role = replica; truncate members; "+test.before+"; reset session_replication_role")
			exec(t, conn, "set role "+app+"; "+test.statement)
			exec(t, conn, "reset role")
			if got := told.soFar(t, func(sql string) { exec(t, conn, sql) }); !slices.Equal(got, sorted(test.want)) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func TestTriggersWithOtherNames(t *testing.T) {
	tests := map[string]struct {
		table     string
		names     map[string]string
		statement string
		want      []member.Change
	}{
		"names that need quotes": {
			`create schema "My App"; create table "My App"."Member's" ("Tenant Name" text, "KC" uuid, "select" uuid)`,
			map[string]string{"members_table": `"My App"."Member''s"`, "tenant_column": "Tenant Name", "kc_id_column": "KC", "id_column": "select"},
			`insert into "My App"."Member's" values ('acme', '` + alice + `', '` + bob + `')`,
			[]member.Change{{Tenant: "acme", ID: bob}, {Tenant: "acme", KCID: alice}},
		},
		"a table of users of all tenants": {
			"create table users (sub text, name text)",
			map[string]string{"members_table": "users", "tenant_column": "", "kc_id_column": "sub", "id_column": ""},
			"insert into users values ('k', 'Kim')",
			[]member.Change{{KCID: "k"}},
		},
		"a table of tenants": {
			"create table tenants (name text, closed boolean)",
			map[string]string{"members_table": "tenants", "tenant_column": "name", "kc_id_column": "", "id_column": ""},
			"insert into tenants values ('acme', true)",
			[]member.Change{{Tenant: "acme"}},
		},
		"a schema for each tenant": {
			"create schema tenant_acme; create table tenant_acme.members (kc_id text, id int)",
			map[string]string{"members_table": "tenant_acme.members", "tenant_schema": "tenant_*"},
			"insert into tenant_acme.members values ('k', 1)",
			[]member.Change{{Tenant: "acme", ID: "1"}, {Tenant: "acme", KCID: "k"}},
		},
		"the truncated table of a tenant": {
			"create schema tenant_acme; create table tenant_acme.members (kc_id text, id int)",
			map[string]string{"members_table": "tenant_acme.members", "tenant_schema": "tenant_*"},
			"truncate tenant_acme.members",
			[]member.Change{{Tenant: "acme"}},
		},
		"a partitioned table": {
			"create table parted (tenant text, kc_id text, id int) partition by list (tenant); create table part partition of parted default",
			map[string]string{"members_table": "parted"},
			"insert into parted values ('acme', 'k', 1)",
			[]member.Change{{Tenant: "acme", ID: "1"}, {Tenant: "acme", KCID: "k"}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dsn := postgresDSN(t, test.table)
			servers.PSQL(t, dsn, notifySQL(t, test.names))
			told := watch(t, listenTo(t, dsn, ""))
			told.wantAll(t)
			servers.PSQL(t, dsn, test.statement)
			if got := told.soFar(t, func(sql string) { servers.PSQL(t, dsn, sql) }); !slices.Equal(got, sorted(test.want)) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

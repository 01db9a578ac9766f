package sqlresolver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

const tenantsTable = "create table members (kc_id text, active boolean, id int); insert into members values ('k', true, 1);"

// tenantsDSN returns a template of PostgreSQL databases, and makes those of the
// given tenants.
func tenantsDSN(t *testing.T, tenants ...string) string {
	t.Helper()
	base := servers.Postgres(t)
	for _, tenant := range tenants {
		name := lastPart(base) + "_" + tenant
		servers.PSQL(t, base, fmt.Sprintf("create database %q", name))
		t.Cleanup(func() {
			servers.PSQL(dropper{t}, base, fmt.Sprintf("drop database %q with (force)", name))
		})
		servers.PSQL(t, strings.Replace(base, lastPart(base), name, 1), tenantsTable)
	}
	return strings.Replace(base, lastPart(base), lastPart(base)+"_{tenant}", 1)
}

// dropper is a test that has ended and cleans up.
type dropper struct{ *testing.T }

func (dropper) Context() context.Context { return context.Background() }

func lastPart(dsn string) string {
	dsn, _, _ = strings.Cut(dsn, "?")
	return dsn[strings.LastIndex(dsn, "/")+1:]
}

func TestADatabaseForEachTenant(t *testing.T) {
	dsn := tenantsDSN(t, "acme", "Acme", "b.c-d_e")
	prefix := len(lastPart(strings.ReplaceAll(dsn, "{tenant}", ""))) + 1
	r := mustLoad(t, map[string]any{
		"driver": "postgres", "dsn": dsn, "max_tenants": 2,
		"query": fmt.Sprintf("select kc_id, substr(current_database(), %d) as tenant, active, id from members where kc_id = :kc_id", prefix),
	})
	for range 2 {
		for _, tenant := range []string{"acme", "Acme", "b.c-d_e"} {
			got, err := ask(t, r, "k", tenant)
			if err != nil || got.Tenant != tenant {
				t.Fatalf("%s: got %+v, %v", tenant, got, err)
			}
			if _, err := ask(t, r, "l", tenant); !errors.Is(err, member.ErrUnknown) {
				t.Errorf("%s: got %v, want ErrUnknown", tenant, err)
			}
		}
	}
	many := r.place.many
	if n := many.proven.Len(); n != 2 || many.fresh.Len() != 0 || len(many.byName) != 2 {
		t.Errorf("%d databases are kept, want 2", n)
	}
	// made up tenants find nobody, and push nobody out
	for i := range 5 {
		if _, err := ask(t, r, "k", fmt.Sprintf("made-up-%d", i)); !errors.Is(err, member.ErrUnknown) {
			t.Errorf("got %v, want ErrUnknown", err)
		}
	}
	for i := range 5 { // nor do those of which nothing is known yet
		if _, err := many.of(fmt.Sprintf("waiting-%d", i)); err != nil {
			t.Error(err)
		}
	}
	if many.byName["b.c-d_e"] == nil || many.byName["Acme"] == nil || many.proven.Len() != 2 || many.fresh.Len() != 2 || len(many.byName) != 4 {
		t.Errorf("made up tenants push out real ones, or stay: %d and %d are kept", many.proven.Len(), many.fresh.Len())
	}
}

// A tenant's name becomes part of an address: only plain ones may.
func TestTenantsWithOtherNamesHaveNoDatabase(t *testing.T) {
	r := mustLoad(t, map[string]any{"driver": "postgres", "dsn": "postgres://u@127.0.0.1:1/{tenant}", "query": "select 'a' as tenant from members where kc_id = :kc_id"})
	for _, tenant := range []string{"", "a/b", "a?host=evil", "a b", "../a", ".a", "-a", "a%2fb", "ä", "a\x00", "a'", "a@evil", "a:b", "{tenant}", strings.Repeat("a", 64)} {
		if _, err := ask(t, r, "k", tenant); !errors.Is(err, errBadTenant) || !errors.Is(err, member.ErrUnknown) {
			t.Errorf("%q: got %v", tenant, err)
		}
	}
	if _, err := ask(t, r, "k", "acme"); err == nil || errors.Is(err, member.ErrUnknown) {
		t.Errorf("a closed port: got %v", err)
	}
	// the server would cut it short, to the name of another tenant's perhaps
	long := mustLoad(t, map[string]any{"driver": "postgres", "dsn": "postgres://u@127.0.0.1:1/app_{tenant}", "query": "select 'a' as tenant from members where kc_id = :kc_id"})
	if _, err := ask(t, long, "k", strings.Repeat("a", 60)); !errors.Is(err, errBadTenant) {
		t.Errorf("a name that is too long: got %v", err)
	}
}

func TestASchemaForEachTenant(t *testing.T) {
	role := uniqueRole()
	dsn := postgresDSN(t, strings.NewReplacer("members", "tenant_acme.members").Replace("create schema tenant_acme; "+tenantsTable)+
		strings.NewReplacer("members", `"tenant_Acme".members`, "1)", "2)").Replace(`create schema "tenant_Acme"; `+tenantsTable)+
		"create schema tenant_hidden; create function public.shared() returns text language sql as 'select ''shared''';"+
		"create table public.members (kc_id text, active boolean, id int); insert into public.members values ('k', true, 99); create role "+role+" login password 'x'; grant usage on schema tenant_acme to "+role+"; grant select on tenant_acme.members to "+role+";")
	r := mustLoad(t, map[string]any{
		"driver": "postgres", "dsn": dsn, "schema": "tenant_{tenant}, public",
		"query": "select kc_id, substr(current_schema(), 8) as tenant, active, id, shared() as note from members where kc_id = :kc_id",
	})
	var group sync.WaitGroup
	for i := range 8 { // at once, so that sessions would be mixed up if they could be
		group.Go(func() {
			tenant, want := "acme", "1"
			if i%2 == 1 {
				tenant, want = "Acme", "2"
			}
			got, err := ask(t, r, "k", tenant)
			if err != nil || got.Tenant != tenant || got.ID != want || got.Attributes["note"].Text() != "shared" {
				t.Errorf("%s: got %+v, %v", tenant, got, err)
			}
		})
	}
	group.Wait()
	// PostgreSQL passes over a schema that is not there, and would find what is in public
	if got, err := ask(t, r, "k", "nobody"); !errors.Is(err, member.ErrUnknown) {
		t.Errorf("a tenant without a schema: got %+v, %v", got, err)
	}
	limited := mustLoad(t, map[string]any{
		"driver": "postgres", "dsn": strings.Replace(dsn, dsn[strings.Index(dsn, "//")+2:strings.Index(dsn, "@")], role+":x", 1), "schema": "tenant_{tenant},public",
		"query": "select kc_id, substr(current_schema(), 8) as tenant, active, id from members where kc_id = :kc_id",
	})
	if _, err := ask(t, limited, "k", "acme"); err != nil {
		t.Errorf("with usage: %v", err)
	}
	if _, err := ask(t, limited, "k", "hidden"); err == nil || errors.Is(err, member.ErrUnknown) || !strings.Contains(err.Error(), "grant usage") {
		t.Errorf("without usage: %v", err)
	}
}

func TestAMySQLDatabaseForEachTenant(t *testing.T) {
	base := servers.MariaDB(t)
	name := base[strings.LastIndex(base, "/")+1:]
	servers.MariaDBSQL(t, base, "create database "+name+"_acme; use "+name+"_acme; "+tenantsTable)
	t.Cleanup(func() { servers.MariaDBSQL(dropper{t}, base, "drop database "+name+"_acme") })
	r := mustLoad(t, map[string]any{"driver": "mysql", "dsn": base + "_{tenant}", "query": "select kc_id, substr(database(), " + fmt.Sprint(len(name)+2) + ") as tenant, active, id from members where kc_id = :kc_id"})
	if got, err := ask(t, r, "k", "acme"); err != nil || got.Tenant != "acme" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := ask(t, r, "k", "other"); !errors.Is(err, member.ErrUnknown) || !errors.Is(err, member.ErrUnknownTenant) {
		t.Errorf("got %v, want ErrUnknownTenant", err)
	}
}

func TestAnSQLiteFileForEachTenant(t *testing.T) {
	path, _ := sqliteDB(t, "create table members (kc_id text, tenant text, active boolean, id int); insert into members values ('k', 'acme', true, 1);")
	dir, base := filepath.Split(path)
	template := dir + "{tenant}" + strings.TrimPrefix(base, base[:1])
	r := mustLoad(t, map[string]any{"driver": "sqlite", "dsn": template, "query": "select * from members where kc_id = :kc_id"})
	if got, err := ask(t, r, "k", base[:1]); err != nil || got.Tenant != "acme" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := ask(t, r, "k", "other"); !errors.Is(err, member.ErrUnknown) || !errors.Is(err, member.ErrUnknownTenant) {
		t.Errorf("got %v, want ErrUnknownTenant", err)
	}
}

func TestDatabasesOfTenantsAreClosedWhenIdle(t *testing.T) {
	dir := t.TempDir()
	s := settings{address: address{DSN: filepath.Join(dir, "{tenant}.db")}, MaxOpenConns: 1, MaxIdleConns: 1, ConnMaxIdleTime: time.Minute}
	many, err := newTenantDatabases(sqliteKind, s, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, tenant := range []string{"a", "b"} {
		if _, err := many.of(tenant); err != nil {
			t.Fatal(err)
		}
	}
	many.byName["a"].used = time.Now().Add(-2 * time.Minute)
	if _, err := many.of("b"); err != nil {
		t.Fatal(err)
	}
	if many.byName["a"] != nil || many.byName["b"] == nil || len(many.byName) != 1 {
		t.Errorf("%d are open", len(many.byName))
	}
	if err := many.Destruct(); err != nil || len(many.byName) != 0 {
		t.Errorf("%v, %d are open", err, len(many.byName))
	}
	// a request that is still being served gets one that is closed after it
	if db, err := many.of("b"); err != nil || db == nil || len(many.byName) != 0 {
		t.Errorf("%v, %d are open", err, len(many.byName))
	}
}

func TestTemplatesThatAreRefused(t *testing.T) {
	const secret = "hunter2secret"
	query := columns + " where kc_id = :kc_id"
	tests := map[string]struct {
		config map[string]any
		want   string
	}{
		// a request could have the password sent to any server
		"a host that the tenant names":     {map[string]any{"driver": "postgres", "dsn": "postgres://u:" + secret + "@{tenant}/d", "query": query}, "must not be the end of a host's name"},
		"a host that ends in it":           {map[string]any{"driver": "postgres", "dsn": "postgres://u:" + secret + "@db-{tenant}:5432/d", "query": query}, "must not be the end of a host's name"},
		"a second host that ends in it":    {map[string]any{"driver": "postgres", "dsn": "host=h,{tenant} password=" + secret, "query": query}, "must not be the end of a host's name"},
		"a host of MySQL's":                {map[string]any{"driver": "mysql", "dsn": "u:" + secret + "@tcp({tenant}:3306)/d", "query": query}, "must not be the end of a host's name"},
		"the password":                     {map[string]any{"driver": "postgres", "dsn": "postgres://u:{tenant}@h/d", "query": query}, "must not be part of the password"},
		"a schema of SQLite's":             {map[string]any{"driver": "sqlite", "dsn": "a.db", "schema": "{tenant}", "query": query}, "only PostgreSQL has them"},
		"a schema without a tenant":        {map[string]any{"driver": "postgres", "dsn": "host=h", "schema": "app", "query": query}, "must be a name with {tenant}"},
		"a schema that is SQL":             {map[string]any{"driver": "postgres", "dsn": "host=h", "schema": `{tenant}"; drop`, "query": query}, "must be a name with {tenant}"},
		"a tenant second":                  {map[string]any{"driver": "postgres", "dsn": "host=h", "schema": "public, {tenant}", "query": query}, "must be a name with {tenant}"},
		"a bound without tenants":          {map[string]any{"driver": "postgres", "dsn": "host=h", "max_tenants": 3, "query": columns + byKey}, "there is one database for all"},
		"too high a bound":                 {map[string]any{"driver": "postgres", "dsn": "dbname={tenant}", "max_tenants": 10_001, "query": query}, "max_tenants: must be from 1 to 10000"},
		"one database without a tenant":    {map[string]any{"driver": "postgres", "dsn": "host=h", "query": query}, "does not use :tenant"},
		"the tenant as the request has it": {map[string]any{"driver": "postgres", "dsn": "dbname={tenant}", "query": "select kc_id, :tenant as tenant, active, id from members where kc_id = :kc_id"}, "selects :tenant as tenant"},
		"listening at many databases":      {map[string]any{"driver": "postgres", "dsn": "dbname={tenant}", "query": query, "invalidate_on_notify": "a"}, "give the listen_dsn"},
		"writing elsewhere":                {map[string]any{"driver": "postgres", "dsn": "dbname={tenant}", "query": query, "on_unknown": "insert into m values (:kc_id)", "write_dsn": "dbname=d"}, "if and only if dsn has"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, test.config)
			if err == nil {
				t.Fatal("accepted")
			}
			checkError(t, err, secret, test.want)
			if n := len(databases.All()) + len(databasesOfTenants.All()) + len(listeners.All()); n != 0 {
				t.Errorf("%d shares are left behind", n)
			}
		})
	}
	for _, dsn := range []string{"postgres://u@{tenant}.db.internal/d", "postgres://{tenant}@h/{tenant}?search_path={tenant}", "host=/run/{tenant} dbname=d", "{env.KCA_TEST_TEMPLATE}"} {
		t.Setenv("KCA_TEST_TEMPLATE", "postgres://u@h/{tenant}")
		r := mustLoad(t, map[string]any{"driver": "postgres", "dsn": dsn, "query": query})
		if r.place.many == nil || r.Identity() == "" {
			t.Errorf("%s is no template", dsn)
		}
	}
}

package sqlresolver

import (
	"crypto/rand"
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// Without a unique key: that one user becomes one member is not its doing.
const createTables = `
	create table members (kc_id text, tenant varchar(63), active boolean default true, id int, email text);
	create table log (kc_id text);`

const createQuery = "select kc_id, tenant, active, coalesce(id, 7) as id, email from members" + byKey

// uniqueRole is a name for a role, of which a server's databases share one set.
func uniqueRole() string { return "role_" + strings.ToLower(rand.Text()) }

func TestUnknownUsersAreCreatedOnce(t *testing.T) {
	path, db := sqliteDB(t, createTables)
	postgres, mysql := postgresDSN(t, createTables), mysqlDSN(t, createTables)
	tests := map[string]struct {
		driver, dsn, slow string // something that takes a while, for others to come between
		count             func() string
	}{
		"postgres": {"postgres", postgres, "pg_sleep(0.2)", func() string { return servers.PSQL(t, postgres, "select count(*) from members") }},
		"mysql":    {"mysql", mysql, "sleep(0.2)", func() string { return servers.MariaDBSQL(t, mysql, "select count(*) from members") }},
		"sqlite": {"sqlite", path, "1", func() (n string) {
			if err := db.QueryRowContext(t.Context(), "select count(*) from members").Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			config := map[string]any{
				"driver": test.driver, "dsn": test.dsn, "query": createQuery,
				"on_unknown": "insert into members (kc_id, tenant, email) select :kc_id, :tenant, :claim.email from (select " + test.slow + ") as one where :tenant = 'acme'",
			}
			// two nodes: two pools, and many requests at once
			one := mustLoad(t, config)
			config["max_open_conns"] = 5
			two := mustLoad(t, config)
			if one.writes.one == one.place.one {
				t.Fatal("it writes with the connections that read")
			}
			var group sync.WaitGroup
			for i := range 16 {
				group.Go(func() {
					q := member.Query{KCID: "k", Tenant: "acme", Claims: map[string]member.Value{"email": member.Text("k@acme.example")}}
					got, err := []*Resolver{one, two}[i%2].Resolve(t.Context(), q)
					if err != nil || got.KCID != "k" || !got.Active || got.Attributes["email"].Text() != "k@acme.example" {
						t.Errorf("got %+v, %v", got, err)
					}
				})
			}
			group.Wait()
			if n := test.count(); n != "1" {
				t.Errorf("%s members were created", n)
			}
			// a condition in the statement says who may become a member
			if got, err := one.Resolve(t.Context(), member.Query{KCID: "k", Tenant: "other"}); !errors.Is(err, member.ErrUnknown) {
				t.Errorf("got %+v, %v, want ErrUnknown", got, err)
			}
			if n := test.count(); n != "1" {
				t.Errorf("%s members are there", n)
			}
		})
	}
}

// Whatever else opens a database, only on_unknown's own connections may write.
func TestOnlyOnUnknownWrites(t *testing.T) {
	dsn := postgresDSN(t, createTables)
	config := map[string]any{"driver": "postgres", "dsn": dsn, "query": createQuery}
	r := mustLoad(t, config)
	if _, err := ask(t, r, "k", "acme"); !errors.Is(err, member.ErrUnknown) {
		t.Errorf("off by default: got %v", err)
	}
	config["on_unknown"] = "insert into members (kc_id, tenant) values (:kc_id, :tenant)"
	config["query"] = "with x as (insert into members (kc_id, tenant) values (:kc_id, :tenant) returning *) select kc_id, tenant, true as active, 1 as id from x"
	if _, err := ask(t, mustLoad(t, config), "k", "acme"); err == nil || !strings.Contains(err.Error(), "25006") {
		t.Errorf("the query writes: got %v", err)
	}
	if n := servers.PSQL(t, dsn, "select count(*) from members"); n != "0" {
		t.Errorf("%s members were created", n)
	}
}

func TestCreatingFails(t *testing.T) {
	role := uniqueRole()
	dsn := postgresDSN(t, createTables+"create unique index on members (email); insert into members values ('other', 'acme', true, 1, 'taken@acme.example');"+
		"create role "+role+" login password 'hunter2secret'; grant select on members to "+role+";")
	reader, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	reader.User = url.UserPassword(role, "hunter2secret")
	const insert = "insert into members (kc_id, tenant, email) values (:kc_id, :tenant, :claim.email)"
	tests := map[string]struct{ create, writeDSN, want string }{
		"another's address":            {insert, "", "on_unknown: querying the members: SQLSTATE 23505"},
		"a user who may not":           {insert, reader.String(), "SQLSTATE 42501: permission denied"},
		"a mistake in the statement":   {"insert into nothing values (:kc_id, :tenant)", "", "SQLSTATE 42P01"},
		"a member of another tenant":   {"insert into members (kc_id, tenant, email) select :kc_id, :tenant || '', null where false", "", "no such member"},
		"a database that is not there": {insert, "postgres://u:hunter2secret@127.0.0.1:1/d", "refused"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			config := map[string]any{"driver": "postgres", "dsn": dsn, "query": createQuery, "on_unknown": test.create}
			if test.writeDSN != "" {
				config["write_dsn"] = test.writeDSN
			}
			_, err := mustLoad(t, config).Resolve(t.Context(), member.Query{KCID: "secret-user", Tenant: "acme", Claims: map[string]member.Value{"email": member.Text("taken@acme.example")}})
			if err == nil {
				t.Fatal("created")
			}
			checkError(t, err, "hunter2secret", test.want)
			checkError(t, err, "taken@acme.example")
			checkError(t, err, "secret-user")
		})
	}
	if n := servers.PSQL(t, dsn, "select count(*) from members"); n != "1" {
		t.Errorf("%s members are there", n)
	}
}

// The application may create the member at the same moment, without our lock.
func TestTheApplicationIsFaster(t *testing.T) {
	dsn := postgresDSN(t, `create table members (kc_id text, tenant text, active boolean default true, id int, email text, unique (kc_id, tenant));
		create function rival() returns trigger language plpgsql as $$ begin if pg_trigger_depth() = 1 then perform pg_sleep(0.5); end if; return new; end $$;
		create trigger rival before insert on members for each row when (new.id = 1) execute function rival();`)
	r := mustLoad(t, map[string]any{"driver": "postgres", "dsn": dsn, "query": createQuery, "on_unknown": "insert into members (kc_id, tenant, id) values (:kc_id, :tenant, 1)"})
	done := make(chan error)
	go func() {
		_, err := ask(t, r, "k", "acme")
		done <- err
	}()
	for servers.PSQL(t, dsn, "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()") == "0" {
		if t.Context().Err() != nil {
			t.Fatal("it does not insert")
		}
	}
	servers.PSQL(t, dsn, "insert into members (kc_id, tenant, id) values ('k', 'acme', 2)")
	if err := <-done; err != nil {
		t.Errorf("got %v", err)
	}
}

func TestStatementsThatCreateNobody(t *testing.T) {
	tests := map[string]struct {
		config map[string]any
		want   string
	}{
		"a deletion":          {map[string]any{"on_unknown": "delete from members where kc_id = :kc_id and tenant = :tenant"}, "on_unknown: it must begin with INSERT"},
		"the same for all":    {map[string]any{"on_unknown": "insert into members values (:tenant)"}, "on_unknown: it does not use :kc_id"},
		"no tenant":           {map[string]any{"on_unknown": "insert into members values (:kc_id)"}, "on_unknown: it does not use :tenant"},
		"several statements":  {map[string]any{"on_unknown": "insert into members values (:kc_id, :tenant); drop table members"}, "on_unknown: it goes on after the semicolon"},
		"nothing to write to": {map[string]any{"write_dsn": "host=h"}, "write_dsn: nothing writes"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.config["driver"], test.config["dsn"], test.config["query"] = "postgres", "host=h", createQuery
			_, err := load(t, test.config)
			if err == nil {
				t.Fatal("accepted")
			}
			checkError(t, err, "", test.want)
		})
	}
}

package sqlresolver

import (
	"maps"
	"strings"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

func TestCheck(t *testing.T) {
	postgres := postgresDSN(t, postgresTable+"create table numbered (kc_id uuid, tenant int, active boolean, id uuid); create table grants (member_id uuid, role text);"+
		"insert into members (kc_id, tenant, id) values ('"+bob+"', 'x', 1);")
	mysql := mysqlDSN(t, mysqlTable)
	path, _ := sqliteDB(t, membersTable)
	const from = " from members" + byKey
	tests := map[string]struct {
		config map[string]any
		want   []string // none if it is good
	}{
		"a good query":                {map[string]any{"query": "select kc_id, tenant, active, id, roles" + from}, nil},
		"columns of other types":      {map[string]any{"query": "select * from numbered" + byKey}, nil},
		"a query with claims":         {map[string]any{"query": "select kc_id, tenant, active, id" + from + " and email = :claim.email and :claim.groups::text[] <> '{}'"}, nil},
		"a missing column":            {map[string]any{"query": "select kc_id, tenant, active" + from}, []string{"query: the query has no column id; select"}},
		"columns of a wrong type":     {map[string]any{"query": "select kc_id, tenant, joined as active, photo as id, photo" + from}, []string{"column active has the type TIMESTAMPTZ", "select a condition", "column id has the type BYTEA", "column photo has the type BYTEA and must be text"}},
		"an array for an id":          {map[string]any{"query": "select kc_id, tenant, active, roles as id" + from}, []string{"column id has the type _TEXT"}},
		"a table that is missing":     {map[string]any{"query": "select * from nothing" + byKey}, []string{"query: ", "SQLSTATE 42P01"}},
		"a query that finds anybody":  {map[string]any{"query": "select kc_id, tenant, active, id from members where (kc_id = :kc_id or true) and :tenant <> '' limit 1"}, []string{"query: it finds a member for a user who does not exist"}},
		"no such server":              {map[string]any{"dsn": "postgres://u:hunter2secret@127.0.0.1:1/d", "query": columns + byKey}, []string{"query: ", "127.0.0.1:1", "refused"}},
		"a good profile":              {map[string]any{"query": "select * from numbered" + byKey, "profile": "select role as roles from grants where member_id = :member_id"}, nil},
		"a profile of a wrong type":   {map[string]any{"query": "select * from numbered" + byKey, "profile": "select 'x'::bytea as x from grants where member_id = :member_id"}, []string{"profile: column x has the type BYTEA"}},
		"a profile without its table": {map[string]any{"query": "select * from numbered" + byKey, "profile": "select role from nothing where member_id = :member_id"}, []string{"profile: ", "SQLSTATE 42P01"}},
		"a good statement":            {map[string]any{"query": "select kc_id, tenant, active, id" + from, "on_unknown": "insert into members (kc_id, tenant, id) values (:kc_id, :tenant, 5)"}, nil},
		"a bad statement":             {map[string]any{"query": "select kc_id, tenant, active, id" + from, "on_unknown": "insert into nothing values (:kc_id, :tenant)"}, []string{"on_unknown: ", "SQLSTATE 42P01"}},
		"a good channel":              {map[string]any{"query": "select kc_id, tenant, active, id" + from, "invalidate_on_notify": "a"}, nil},
		"listening at nobody":         {map[string]any{"query": "select kc_id, tenant, active, id" + from, "invalidate_on_notify": "a", "listen_dsn": "postgres://u:hunter2secret@127.0.0.1:1/d"}, []string{"invalidate_on_notify: ", "refused"}},
		"several mistakes":            {map[string]any{"query": "select kc_id, tenant, active" + from, "profile": "select role from nothing where member_id = :member_id"}, []string{"query: ", "profile: "}},
		"tenants with databases":      {map[string]any{"dsn": strings.Replace(postgres, "/test_", "/none_{tenant}", 1), "query": "select current_schema() as tenant from members where kc_id = :kc_id"}, nil},
		"MySQL":                       {map[string]any{"driver": "mysql", "dsn": mysql, "query": "select kc_id, tenant, active, id" + from}, nil},
		"MySQL with wrong types":      {map[string]any{"driver": "mysql", "dsn": mysql, "query": "select kc_id, tenant, joined as active, uid as id" + from}, []string{"column active has the type TIMESTAMP", "column id has the type BINARY"}},
		"SQLite":                      {map[string]any{"driver": "sqlite", "dsn": path, "query": "select kc_id, tenant, active, id" + from}, nil},
		"SQLite without a column":     {map[string]any{"driver": "sqlite", "dsn": path, "query": "select kc_id, tenant, id" + from}, []string{"no column active"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			config := map[string]any{"driver": "postgres", "dsn": postgres}
			maps.Copy(config, test.config)
			err := mustLoad(t, config).Check(t.Context())
			if test.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("no mistake is found")
			}
			checkError(t, err, "hunter2secret", test.want...)
		})
	}
	if n := servers.PSQL(t, postgres, "select count(*) from members"); n != "3" {
		t.Errorf("%s members are there: a check has written", n)
	}
}

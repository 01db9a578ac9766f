package sqlresolver

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func TestClaimsAreBound(t *testing.T) {
	claims := map[string]member.Value{
		"email":                        member.Text("a'; drop table members; --"),
		"realm_access.roles":           member.List("x", `"y",{z}`),
		"resource_access.my-app.roles": member.List(),
		"level":                        member.Text("3"),
	}
	const postgres = `select 'k' as kc_id, 'acme' as tenant, true as active, 1 as id, :claim.email::text as email,
		:claim.realm_access.roles::text[] as realm, :claim."resource_access.my-app.roles"::text[] as app, :claim.level::int + 1 as level,
		(:claim.nothing::text is null)::text as missing, :claim.nothing::text[] as none where :kc_id <> :tenant`
	const sqlite = `select 'k' as kc_id, 'acme' as tenant, true as active, 1 as id, :claim.email as email,
		:claim.realm_access.roles as "realm[]", :claim."resource_access.my-app.roles" as "app[]", :claim.level + 1 as level,
		iif(:claim.nothing is null, 'true', 'false') as missing, :claim.nothing as none where :kc_id <> :tenant`
	path, _ := sqliteDB(t, membersTable)
	tests := map[string]map[string]any{
		"postgres": {"driver": "postgres", "dsn": postgresDSN(t, ""), "query": postgres},
		"sqlite":   {"driver": "sqlite", "dsn": path, "query": sqlite},
		"mysql":    {"driver": "mysql", "dsn": mysqlDSN(t, "select 1"), "query": strings.NewReplacer("iif(", "if(", `as "realm[]"`, "as `realm[]`", `as "app[]"`, "as `app[]`").Replace(sqlite)},
	}
	for name, config := range tests {
		t.Run(name, func(t *testing.T) {
			r := mustLoad(t, config)
			if got := r.Claims(); !slices.Equal(got, []string{"email", "level", "nothing", "realm_access.roles", "resource_access.my-app.roles"}) {
				t.Errorf("it reads %q", got)
			}
			got, err := r.Resolve(t.Context(), member.Query{KCID: "k", Tenant: "acme", Claims: claims})
			if err != nil {
				t.Fatal(err)
			}
			checkMember(t, got, &member.Member{KCID: "k", Tenant: "acme", Active: true, ID: "1", Attributes: map[string]member.Value{
				"email": claims["email"], "realm": claims["realm_access.roles"], "app": member.List(), "level": member.Text("4"), "missing": member.Text("true"),
			}})
		})
	}
}

func TestClaimsOfTheWrongKind(t *testing.T) {
	dsn := postgresDSN(t, postgresTable)
	const secret = "hunter2secret"
	tests := map[string]struct {
		condition string
		claim     member.Value
		want      string // "" if nobody is found
	}{
		"a list for a text":           {"email = :claim.c", member.List(secret), "the value of :claim.c does not fit"},
		"a text for a list":           {"email = any(:claim.c::text[])", member.Text(secret), "SQLSTATE 22P02"},
		"a text for a number":         {"id = :claim.c", member.Text(secret), ""},
		"a number out of range":       {"id = :claim.c", member.Text("99999999999999999999"), ""},
		"a list that holds the value": {"email = any(:claim.c)", member.List(secret), ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := mustLoad(t, map[string]any{"driver": "postgres", "dsn": dsn, "query": "select * from members" + byKey + " and " + test.condition})
			_, err := r.Resolve(t.Context(), member.Query{KCID: alice, Tenant: "acme", Claims: map[string]member.Value{"c": test.claim}})
			if test.want == "" {
				if !errors.Is(err, member.ErrUnknown) {
					t.Errorf("got %v, want ErrUnknown", err)
				}
				return
			}
			if err == nil || errors.Is(err, member.ErrUnknown) {
				t.Fatalf("got %v", err)
			}
			checkError(t, err, secret, test.want)
		})
	}
}

// SQLite's messages quote values.
func TestClaimsAreInNoError(t *testing.T) {
	const secret = "hunter2secret"
	path, _ := sqliteDB(t, membersTable)
	r := mustLoad(t, map[string]any{"driver": "sqlite", "dsn": path, "query": "select json_extract('{}', :claim.c) from members" + byKey})
	_, err := r.Resolve(t.Context(), member.Query{KCID: alice, Tenant: "acme", Claims: map[string]member.Value{"c": member.Text(secret)}})
	if err == nil || errors.Is(err, member.ErrUnknown) {
		t.Fatalf("got %v", err)
	}
	checkError(t, err, secret, "may hold values")
}

func TestAQueryWithoutClaimsReadsNone(t *testing.T) {
	r := mustLoad(t, map[string]any{"driver": "postgres", "dsn": "host=h", "query": columns + byKey})
	if got := r.Claims(); len(got) != 0 {
		t.Errorf("it reads %q", got)
	}
}

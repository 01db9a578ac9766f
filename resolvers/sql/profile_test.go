package sqlresolver

import (
	"errors"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

const grantsTables = `
	create table members (kc_id text, tenant text, active boolean, id int);
	create table grants (member_id int, role text, team text);
	insert into members values ('k', 'acme', true, 1), ('l', 'acme', true, 2), ('m', 'acme', false, 3);
	insert into grants values (1, 'editor', 'a'), (1, 'viewer', 'a'), (1, 'editor', null), (2, 'admin', 'b'), (3, 'admin', 'c');`

func TestProfiles(t *testing.T) {
	path, _ := sqliteDB(t, grantsTables)
	databases := map[string]map[string]any{
		"postgres": {"driver": "postgres", "dsn": postgresDSN(t, grantsTables)},
		"mysql":    {"driver": "mysql", "dsn": mysqlDSN(t, grantsTables)},
		"sqlite":   {"driver": "sqlite", "dsn": path},
	}
	const profile = "select role as roles, team from grants where member_id = :member_id and :kc_id <> :tenant order by role"
	list := func(roles, team []string) map[string]member.Value {
		return map[string]member.Value{"roles": member.List(roles...), "team": member.List(team...)}
	}
	tests := map[string]struct {
		user, profile string
		want          map[string]member.Value
		error         string
	}{
		"several rows":                {"k", profile, list([]string{"editor", "viewer"}, []string{"a"}), ""},
		"one row":                     {"l", profile, list([]string{"admin"}, []string{"b"}), ""},
		"no row":                      {"k", profile + " limit 0", list(nil, nil), ""},
		"not for one who is inactive": {"m", profile, map[string]member.Value{}, ""},
		"a column of the query":       {"k", "select role as id from grants where member_id = :member_id", nil, "profile: column id is what the query decides"},
		"an attribute of the query":   {"k", "select role as plan from grants where member_id = :member_id", nil, "profile: it has a column plan, as the query has"},
		"a table that is missing":     {"k", "select role from nothing where member_id = :member_id", nil, "querying the members: "},
	}
	for database, config := range databases {
		for name, test := range tests {
			t.Run(database+"/"+name, func(t *testing.T) {
				config["query"], config["profile"] = "select members.*, 'gold' as plan from members"+byKey, test.profile
				got, err := ask(t, mustLoad(t, config), test.user, "acme")
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
				test.want["plan"] = member.Text("gold")
				checkMember(t, got, &member.Member{KCID: test.user, Tenant: "acme", Active: test.user != "m", ID: map[string]string{"k": "1", "l": "2", "m": "3"}[test.user], Attributes: test.want})
				delete(test.want, "plan")
			})
		}
	}
}

func TestProfilesAreBounded(t *testing.T) {
	dsn := postgresDSN(t, grantsTables)
	tests := map[string]struct{ profile, want string }{
		"many rows":  {"select i as n from generate_series(1, 1001) i where :member_id <> ''", "more than 1000 rows"},
		"many bytes": {"select repeat('x', 40000) as x where :member_id <> ''", "more than 32768 bytes"},
		"many items": {"select array_agg(i::text) as x from generate_series(1, 9000) i where :member_id <> ''", "more than 32768"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ask(t, mustLoad(t, map[string]any{"driver": "postgres", "dsn": dsn, "query": "select * from members" + byKey, "profile": test.profile}), "k", "acme")
			if err == nil {
				t.Fatal("accepted")
			}
			checkError(t, err, "", test.want)
		})
	}
	for profile, want := range map[string]string{
		"select role from grants":                        "does not say whose",
		"delete from grants where member_id=:member_id":  "must begin with SELECT",
		"select role from grants where member_id = :id":  ":id at character",
		"select :member_id as kc_id where :tenant <> ''": "selects :member_id as kc_id",
	} {
		_, err := load(t, map[string]any{"driver": "postgres", "dsn": dsn, "query": "select * from members" + byKey, "profile": profile})
		if err == nil {
			t.Fatalf("%s is accepted", profile)
		}
		checkError(t, err, "", "profile: ", want)
	}
}

// The profile is part of what makes answers differ.
func TestAnotherProfileIsAnotherIdentity(t *testing.T) {
	config := map[string]any{"driver": "postgres", "dsn": "host=h", "query": columns + byKey}
	without := mustLoad(t, config).Identity()
	config["profile"] = "select role as roles from grants where member_id = :member_id"
	with := mustLoad(t, config).Identity()
	config["profile"] = "select role as roles from other where member_id = :member_id"
	other := mustLoad(t, config).Identity()
	if without == with || with == other {
		t.Errorf("%s, %s, %s", without, with, other)
	}
}

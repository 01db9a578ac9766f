package keycloakcacheauth

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// `caddy keycloak-cache-auth check` finds what only asking finds, and says how to
// mend it, before traffic does.
func TestCheckOfResolversThatAreWrong_RS012(t *testing.T) {
	beCheck(t)
	dir := t.TempDir()
	database := filepath.Join(dir, "members.db")
	db, err := sql.Open("sqlite", database)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("create table members (kc_id text, tenant text, active int, id int, photo blob)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	const from = ` from members where kc_id = :kc_id and tenant = :tenant"`
	resolver := func(query string) string {
		return "resolver sql {\n driver sqlite\n dsn " + database + "\n query \"select " + query + from + "\n}\n"
	}
	const good = "kc_id, tenant, active, id"
	unreachable := "resolver sql {\n driver postgres\n dsn postgres://caddy:{env.KCA_TEST_PASSWORD}@127.0.0.1:1/d\n query \"select " + good + from + "\n}\n"
	for name, tc := range map[string]struct {
		resolvers []string // of one handler each
		want      []string // in the error; none if all is well
	}{
		"good ones":                         {[]string{resolver(good), resolver(good)}, nil},
		"a column that is missing":          {[]string{resolver("kc_id, tenant, active")}, []string{"handler 1, resolver 1: query: ", "no column id; select"}},
		"a column that was renamed":         {[]string{resolver("kc_id, tenant, enabled as active, id")}, []string{"handler 1, resolver 1: query: ", "enabled"}},
		"a column of a wrong type":          {[]string{resolver("kc_id, tenant, active, photo as id")}, []string{"column id has the type BLOB and must be text, a uuid or an integer"}},
		"the second resolver of the second": {[]string{resolver(good), resolver(good) + resolver("kc_id, tenant, active")}, []string{"handler 2, resolver 2: query: "}},
		"two mistakes are both told":        {[]string{resolver("kc_id, tenant, id"), resolver("kc_id, tenant, active")}, []string{"handler 1, ", "no column active", "handler 2, ", "no column id"}},
		"a server that is not there":        {[]string{unreachable}, []string{"refused"}},
		"a configuration that is no good":   {[]string{"resolver sql {\n driver sqlite\n dsn /nonexistent/x.db\n query \"delete from members where :kc_id = :tenant\"\n}\n"}, []string{"resolvers.sql: query: "}},
	} {
		t.Run(name, func(t *testing.T) {
			var config strings.Builder
			for i, text := range tc.resolvers {
				fmt.Fprintf(&config, "http://:%d {\nkeycloak_cache_auth {\nissuer http://127.0.0.1:1/realms/main\naudience shop\n%s}\n}\n", 8080+i, text)
			}
			file := filepath.Join(t.TempDir(), "Caddyfile")
			if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			out, ok := check(t, "--config", file, "--adapter", "caddyfile")
			if ok != (tc.want == nil) {
				t.Fatalf("it ends well: %t, and says %s", ok, out)
			}
			for _, part := range tc.want {
				if !strings.Contains(out, part) {
					t.Errorf("%q does not hold %q", out, part)
				}
			}
			if tc.want == nil && !strings.Contains(out, "2 resolvers are in order") {
				t.Errorf("it says %q", out)
			}
			if strings.Contains(out, secretInTests) {
				t.Error("it tells the password")
			}
		})
	}
}

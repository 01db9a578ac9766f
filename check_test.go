package keycloakcacheauth

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The check loads all of a configuration, as `caddy validate` does: what a
// handler of ours takes from other parts of it is there.
func TestCheckFindsWhatHandlersNeedOfTheWholeConfiguration(t *testing.T) {
	beCheck(t)
	dir := t.TempDir()
	database := filepath.Join(dir, "members.db")
	if err := os.WriteFile(database, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	writeCertificate(t, filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	resolver := func(columns string) object {
		return object{
			"resolver": "sql", "driver": "sqlite", "dsn": database,
			"query": "select " + columns + " where :kc_id = 'k' and :tenant = 'acme'",
		}
	}
	const columns = "'k' as kc_id, 'acme' as tenant, 1 as active, 1 as id"
	trusting := func(pool object) object {
		return object{
			"resolvers": []any{resolver(columns)},
			"stores":    []any{object{"url": "rediss://127.0.0.1:1", "trust_pool": pool}},
		}
	}
	tests := map[string]struct {
		fields object
		want   string // of the error; "" for none
	}{
		"a plain one": {object{"resolvers": []any{resolver(columns)}}, ""},
		"authorities of the pki app": {
			trusting(object{"provider": "pki_root", "authority": []any{"local"}}), "",
		},
		"authorities from the storage": {
			trusting(object{"provider": "storage", "pem_keys": []any{"ca.crt"}}), "",
		},
		"authorities that the storage lacks": {
			trusting(object{"provider": "storage", "pem_keys": []any{"none.crt"}}), "none.crt",
		},
		"a query without a column": {
			object{"resolvers": []any{resolver("'k' as kc_id, 'acme' as tenant, 1 as id")}}, "handler 1, resolver 1: ",
		},
		"a setting that cannot be": {object{"audiences": nil}, "audience"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			handler := jsonConfig(ownIssuer(t), test.fields)
			handler["handler"] = "keycloak_cache_auth"
			handler["@id"] = "auth"
			config, err := json.Marshal(object{
				"admin":   object{"disabled": true},
				"storage": object{"module": "file_system", "root": dir},
				"apps": object{
					"pki": object{"certificate_authorities": object{"local": object{"install_trust": false}}},
					"http": object{"servers": object{"site": object{
						"listen": []any{"127.0.0.1:0"},
						"routes": []any{object{"handle": []any{object{
							"handler": "subroute", "routes": []any{object{"handle": []any{handler}}},
						}}}},
					}}},
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "caddy.json")
			if err := os.WriteFile(file, config, 0o600); err != nil {
				t.Fatal(err)
			}
			out, ok := check(t, "--config", file)
			switch {
			case ok != (test.want == ""):
				t.Errorf("it ends well: %t, and says %s", ok, out)
			case ok && !strings.Contains(out, "1 resolvers are in order\n"), !strings.Contains(out, test.want):
				t.Errorf("it says %s, want %q", out, test.want)
			}
		})
	}
}

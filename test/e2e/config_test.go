package e2e

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
)

const membersQuery = "select kc_id, tenant, active, id, roles, plan from members where kc_id = :kc_id and tenant = :tenant"

// settings are what the tests change about the site.
type settings struct {
	keyPrefix string // of the keys in Redis
	memory    int    // MiB of the cache in memory
	version   int    // appears in an answer header, and changes nothing else
}

func ordinary() settings { return settings{keyPrefix: "kca", memory: 16} }

// caddyfile is the site's configuration as its owner writes it. /open/ needs
// no login. Connections to the application end soon: each reload leaves those
// that were in use to their time-out, two minutes by default, which would hide
// what the module leaves.
func (w *world) caddyfile(s *site, o settings) string {
	return strings.NewReplacer(
		"<admin>", s.AdminListen, "<addr>", s.Addr, "<issuer>", w.realm.Issuer(), "<audience>", audience,
		"<redis>", w.redis.Addr, "<prefix>", o.keyPrefix, "<query>", membersQuery, "<upstream>", w.upstream,
		"<memory>", strconv.Itoa(o.memory), "<version>", strconv.Itoa(o.version),
	).Replace(`{
	admin <admin>
	metrics
}

http://<addr> {
	handle /open/* {
		keycloak_cache_auth {
			strip_only
		}
		reverse_proxy <upstream>
	}
	handle {
		header {
			X-Config-Version <version>
			>X-Cache-Level {http.keycloak_cache_auth.cache}
		}
		keycloak_cache_auth {
			issuer <issuer>
			audience <audience>
			ttl 1h
			stale_if_error 1h
			memory {
				max_size <memory>MiB
			}
			store redis://:{env.REDIS_PASSWORD}@<redis>/0 {
				key_prefix <prefix>
			}
			resolver sql {
				driver postgres
				dsn {env.MEMBERS_DSN}
				query "<query>"
			}
		}
		reverse_proxy <upstream> {
			transport http {
				keepalive 1s
			}
		}
	}
	handle_errors {
		respond "refused with {err.status_code}"
	}
}
`)
}

// json is the same configuration in Caddy's own form.
func (w *world) json(t *testing.T, s *site, o settings) string {
	t.Helper()
	type object = map[string]any
	upstreams := []object{{"dial": strings.TrimPrefix(w.upstream, "http://")}}
	proxy := object{"handler": "reverse_proxy", "upstreams": upstreams}
	proxyOfMembers := object{"handler": "reverse_proxy", "upstreams": upstreams, "transport": object{
		"protocol": "http", "keep_alive": object{"idle_timeout": "1s"},
	}}
	subroute := func(handlers ...object) object {
		return object{"handler": "subroute", "routes": []object{{"handle": handlers}}}
	}
	auth := object{
		"handler":   "keycloak_cache_auth",
		"issuers":   []object{{"url": w.realm.Issuer()}},
		"audiences": []string{audience},
		"ttl":       "1h",

		"stale_if_error": "1h",
		"memory":         object{"max_size": o.memory << 20},
		"stores":         []object{{"url": "redis://:{env.REDIS_PASSWORD}@" + w.redis.Addr + "/0", "key_prefix": o.keyPrefix}},
		"resolvers":      []object{{"resolver": "sql", "driver": "postgres", "dsn": "{env.MEMBERS_DSN}", "query": membersQuery}},
	}
	// like the Caddyfile's directive `header`, whose deferred operations are a handler of their own
	setVersion := object{"handler": "headers", "response": object{"set": object{"X-Config-Version": []string{strconv.Itoa(o.version)}}}}
	setLevel := object{"handler": "headers", "response": object{
		"deferred": true, "set": object{"X-Cache-Level": []string{"{http.keycloak_cache_auth.cache}"}},
	}}
	config := object{
		"admin": object{"listen": s.AdminListen},
		"apps": object{"http": object{"metrics": object{}, "servers": object{"site": object{
			"listen":          []string{s.Addr},
			"automatic_https": object{"disable": true},
			"routes": []object{
				{"match": []object{{"path": []string{"/open/*"}}}, "terminal": true, "handle": []object{
					subroute(object{"handler": "keycloak_cache_auth", "strip_only": true}, proxy),
				}},
				{"handle": []object{subroute(setVersion, setLevel, auth, proxyOfMembers)}},
			},
			"errors": object{"routes": []object{{"handle": []object{
				{"handler": "static_response", "body": "refused with {http.error.status_code}"},
			}}}},
		}}}},
	}
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

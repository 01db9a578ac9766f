package wire_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

// An error page shows nobody: neither whoever used the connection before, nor
// what the client has sent.
func TestErrorPageShowsNobody_SP011_SP017(t *testing.T) {
	static := injection{lines: "resolver static {\n member {TENANT} {KC_ID} {\n id m-1\n }\n}\n"}
	site := newInjectionSite(t, newCanaries(t), map[string]injection{"static": static})
	nobody := strings.Repeat("|", strings.Count(shown, "|"))
	for name, tc := range map[string]struct {
		request func(*http.Request)
		want    string
	}{
		"SP-011 a refusal after an admission": {
			func(r *http.Request) { r.Header.Del("Authorization") }, "401 Unauthorized authentication required " + nobody + tenant,
		},
		"SP-017 markup for a tenant": {
			func(r *http.Request) { r.Header.Set(tenantHeader, "<script>alert(1)</script>") },
			"400 Bad Request tenant missing or malformed " + nobody,
		},
		"SP-017 markup for a token": {
			func(r *http.Request) { r.Header.Set("Authorization", "Bearer <script>alert(1)</script>") },
			"400 Bad Request invalid_request " + nobody + tenant,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := site.send(t, site.request(t, "static", nil)); got.seen == nil || got.seen.Header.Get("X-User-Id") != site.user.ID {
				t.Fatalf("alice is not let in: %+v", got)
			}
			r := site.request(t, "static", nil)
			tc.request(r)
			if got := site.send(t, r); got.body != tc.want || strings.Contains(got.header, "script") {
				t.Errorf("the page is %q with the header %s, want %q", got.body, got.header, tc.want)
			}
		})
	}
}

// What is known of one request is not known of the next on its connection, nor
// of those beside it.
func TestConnectionIsNobodys_SP018(t *testing.T) {
	realm := kctest.Start(t).Realm("acme")
	caddy := servers.StartCaddy(t, caddyBinary(t))
	var members strings.Builder
	requests := make(map[string]string) // by user id, the token
	for _, name := range []string{"alice", "bob"} {
		user := realm.AddUser(kctest.User{Username: name})
		fmt.Fprintf(&members, "\t\t\t\tmember %s %s {\n\t\t\t\t\tid of-%[2]s\n\t\t\t\t}\n", tenant, user.ID)
		requests[user.ID] = realm.AccessToken(user, kctest.Claim("aud", []string{audience}))
	}
	requests[""] = "" // nobody
	caddy.LoadCaddyfile(t, fmt.Sprintf(`{
	admin %s
	servers {
		protocols h1 h2c
	}
}

http://%s {
	route {
		keycloak_cache_auth {
			issuer %s
			audience %s
			optional
			resolver static {
%s			}
		}
		respond "{http.auth.user.id} {http.request.header.X-User-ID} {http.request.header.X-Member-ID}"
	}
}
`, caddy.AdminListen, caddy.Addr, realm.Issuer(), audience, members.String()))

	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: patience}
	ask := func(ctx context.Context, id, token string) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, caddy.URL(), nil)
		if err != nil {
			return err
		}
		r.Header.Set(tenantHeader, tenant)
		want := "  "
		if id != "" {
			r.Header.Set("Authorization", "Bearer "+token)
			want = id + " " + id + " of-" + id
		}
		resp, err := client.Do(r)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err == nil && (resp.ProtoMajor != 2 || resp.StatusCode != http.StatusOK || string(body) != want) {
			err = fmt.Errorf("%s with %d: %q, want %q", resp.Proto, resp.StatusCode, body, want)
		}
		return err
	}
	const rounds, beside = 850, 4 // more than 10,000 requests
	var workers sync.WaitGroup
	for range beside {
		workers.Go(func() {
			for range rounds {
				for id, token := range requests {
					if err := ask(t.Context(), id, token); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	workers.Wait()
}

// doctor is a Python program that gives a member in Redis other attributes, as
// an application may that writes entries by itself.
const doctor = `
import json, sys
entry, text = json.loads(sys.argv[1]), sys.argv[2]
entry["member"]["id"] = text
entry["member"]["attributes"] = {"note": text, "roles": [text, "b"]}
print(json.dumps(entry, indent=1), end="")
`

// What another program has written into Redis is data like all else.
func TestTextInRedisIsNeverExpanded_SP007(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil && os.Getenv("KCA_REQUIRE_SERVERS") == "1" {
		t.Fatal("python3 is not installed")
	} else if err != nil {
		t.Skip("SKIPPED: python3 is not installed")
	}
	redis := servers.Redis(t)
	c := newCanaries(t)
	way := injection{
		lines:   "store " + redis.URL() + "\nresolver static {\n member {TENANT} {KC_ID} {\n id m-1\n }\n}\n",
		reaches: true,
	}
	first := newInjectionSite(t, c, map[string]injection{"redis": way})
	var key string
	first.eventually(t, "the member is in Redis", func(string) bool {
		first.send(t, first.request(t, "redis", nil))
		key = redis.Command(t, "KEYS", "kca:*:"+tenant+":*")
		return key != ""
	})
	written, err := exec.CommandContext(t.Context(), python, "-c", doctor, redis.Command(t, "GET", key), c.planted()).Output()
	if err != nil {
		t.Fatal(err)
	}
	redis.Command(t, "SET", key, string(written), "KEEPTTL")
	second := first.node(t)
	second.eventually(t, "the second node reads it", func(string) bool {
		got := second.send(t, second.request(t, "redis", nil))
		return got.seen != nil && strings.Contains(got.seen.Header.Get("X-Member-Id"), "KCA_CANARY")
	})
	second.try(t, "redis", way)
	if found := c.in(second.caddy.Log(t), c.header); len(found) > 0 {
		t.Errorf("the log holds %q", found)
	}
}

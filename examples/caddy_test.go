package examples_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/assertion"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

// keysPath is where Caddy serves its keys unless it is told otherwise.
const keysPath = "/.well-known/user-assertion/jwks.json"

// caddyBinary is Caddy with the module: the one that KCA_CADDY names, or one that is
// built once for all tests.
var caddyBinary = sync.OnceValues(func() (string, error) {
	dir, err := makeDir()
	if err != nil {
		return "", err
	}
	return servers.CaddyBinary(dir, false)
})

// front is a real Caddy in front of an example, and a realm whose users it lets in.
type front struct {
	*servers.CaddyServer
	realm   *kctest.Realm
	key     string // the file that assertions are signed with
	private crypto.Signer
}

func newFront(t *testing.T, variables ...string) *front {
	t.Helper()
	binary, err := caddyBinary()
	if err != nil {
		t.Fatal(err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "assertion.pem")
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &front{
		CaddyServer: servers.StartCaddy(t, binary, variables...), realm: kctest.Start(t).Realm("main"), key: key, private: private,
	}
}

// load has Caddy serve the example behind the directive with these lines in its block,
// and under /other/ as for another audience.
func (f *front) load(t *testing.T, upstream, lines string) {
	t.Helper()
	block := func(audience string) string {
		return strings.NewReplacer("<issuer>", f.realm.Issuer(), "<audience>", audience, "<site>", site, "<key>", f.key,
			"<lines>", lines, "<upstream>", upstream).Replace(`
		keycloak_cache_auth {
			issuer <issuer>
			audience shop
			assertion {
				key <key>
				issuer <site>
				audience <audience>
			}
			<lines>
		}
		reverse_proxy <upstream>
`)
	}
	f.LoadCaddyfile(t, fmt.Sprintf("{\n\tadmin %s\n}\nhttp://%s {\n\thandle_path /other/* {%s\t}\n\thandle {%s\t}\n}\n",
		f.AdminListen, f.Addr, block("mail"), block(audience)))
}

func (f *front) token(user kctest.User) string {
	return f.realm.AccessToken(user, kctest.Claim("aud", []string{"shop"}))
}

func asMember(token, tenant string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}, "X-Tenant-Id": {tenant}}
}

// TestUpstreamsBehindTheRealCaddy tries each example where it is meant to be.
func TestUpstreamsBehindTheRealCaddy(t *testing.T) {
	for name, command := range upstreamCommands {
		t.Run(name, func(t *testing.T) {
			f := newFront(t)
			ada, bob := f.realm.AddUser(kctest.User{Username: "ada"}), f.realm.AddUser(kctest.User{Username: "bob"})
			members := fmt.Sprintf(`optional
			resolver static {
				member acme %s {
					id 4711
					roles editor viewer
				}
				member acme %s {
					id 4712
				}
			}`, ada.ID, bob.ID)
			echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write([]byte(r.Header.Get("X-User-Assertion"))) // the client may be gone
			}))
			t.Cleanup(echo.Close)
			f.load(t, echo.URL, members)
			assertionFor := func(user kctest.User, path string) string {
				_, _, body := send(t, f.URL()+path, asMember(f.token(user), "acme"))
				return string(body)
			}
			ofBob, forOthers := assertionFor(bob, "/"), assertionFor(ada, "/other/")

			upstream := startUpstream(t, command(t), f.URL()+keysPath)
			f.load(t, upstream, members)
			is := func(text []byte, id string, roles int) error {
				var who struct {
					Member   any      // Django's
					MemberID string   `json:"member_id"`
					ID       string   `json:"memberId"` // Express'
					Tenant   string   `json:"tenant"`
					Roles    []string `json:"roles"`
				}
				if string(text) == "null\n" || string(text) == "null" {
					text = []byte("{}")
				}
				if err := json.Unmarshal(text, &who); err != nil {
					return err
				}
				got := who.MemberID + who.ID
				if who.Member != nil {
					got = fmt.Sprint(who.Member)
				}
				if got != id || len(who.Roles) != roles || (id != "") != (who.Tenant == "acme") {
					return fmt.Errorf("the upstream takes it for %s, not for member %q with %d roles", text, id, roles)
				}
				return nil
			}
			with := func(fields http.Header, name, value string) http.Header {
				fields = fields.Clone()
				fields[name] = []string{value}
				return fields
			}
			member := asMember(f.token(ada), "acme")
			for name, fields := range map[string]http.Header{
				"a member":                                     member,
				"a member again":                               member,
				"a member who sends another's assertion":       with(member, "X-User-Assertion", ofBob),
				"a member who sends it with underscores":       with(member, "X_User_Assertion", ofBob),
				"a member who has Connection take ours away":   with(member, "Connection", "x-user-assertion"),
				"a member who sends another's assertion twice": {"Authorization": member["Authorization"], "X-Tenant-Id": {"acme"}, "X-User-Assertion": {ofBob, ofBob}},
			} {
				status, _, body := send(t, f.URL()+"/whoami", fields)
				if status != http.StatusOK {
					t.Errorf("%s: status %d: %s", name, status, body)
				} else if err := is(body, "4711", 2); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			for name, fields := range map[string]http.Header{
				"nobody":                               {},
				"nobody who sends another's assertion": {"X-User-Assertion": {ofBob}},
				"nobody who sends it with underscores": {"X_user_assertion": {ofBob}},
			} {
				status, _, body := send(t, f.URL()+"/whoami", fields)
				if status != http.StatusOK {
					t.Errorf("%s: status %d: %s", name, status, body)
				} else if err := is(body, "", 0); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if status, _, body := send(t, f.URL()+"/other/whoami", member); status != http.StatusUnauthorized {
				t.Errorf("an assertion for another audience: status %d: %s", status, body)
			}

			// who gets past Caddy has to bring an assertion
			claims := assertion.Claims{
				Subject: ada.ID, Tenant: "acme", MemberID: "4711",
				TokenEnd: time.Now().Add(time.Hour), MemberEnd: time.Now().Add(time.Hour),
			}
			over := claims
			over.MemberID, over.TokenEnd = "4713", time.Now().Add(-time.Minute)
			for name, tc := range map[string]struct {
				text   string
				status int
			}{
				"what Caddy signed":              {ofBob, http.StatusOK},
				"what Caddy signed for others":   {forOthers, http.StatusUnauthorized},
				"one of Caddy's that is over":    {sign(t, newSigner(t, keyOf(t, f.private)), over), http.StatusUnauthorized},
				"one that somebody else signed":  {sign(t, newSigner(t, keyOf(t, stranger(t))), claims), http.StatusUnauthorized},
				"the access token":               {f.token(ada), http.StatusUnauthorized},
				"what Caddy signed, and changed": {ofBob[:len(ofBob)-6] + "AAAAAA", http.StatusUnauthorized},
			} {
				if status, body := get(t, upstream+"/whoami", tc.text); status != tc.status {
					t.Errorf("past Caddy, with %s: status %d, want %d: %s", name, status, tc.status, body)
				}
			}
		})
	}
}

// TestDjangoBeforeAndAfter is the migration that docs/migrating-from-django.md tells: one
// database, one Redis, the middleware of before beside the one of now.
func TestDjangoBeforeAndAfter(t *testing.T) {
	dsn, redis := servers.Postgres(t), servers.Redis(t)
	database := postgresVariables(t, dsn)
	interpreter := python(t)
	django := func(program string) string {
		t.Helper()
		cmd := in("django", exec.CommandContext(t.Context(), interpreter, "manage.py", "shell", "-c", program))
		cmd.Env = append(os.Environ(), database...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", program, err)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return lines[len(lines)-1] // newer versions tell first what they have imported
	}
	migrate := in("django", exec.CommandContext(t.Context(), interpreter, "manage.py", "migrate"))
	migrate.Env = append(os.Environ(), database...)
	run(t, migrate)

	f := newFront(t, "MEMBERS_DSN="+dsn)
	ada, bob := f.realm.AddUser(kctest.User{Username: "ada"}), f.realm.AddUser(kctest.User{Username: "bob"})
	create := func(user kctest.User, tenant, name string) string {
		return django(fmt.Sprintf("from members.models import Member; print(Member.objects.create(kc_id=%q, tenant=%q, name=%q).pk)", user.ID, tenant, name))
	}
	create(bob, "acme", "Bob")
	atAcme, atGlobex := create(ada, "acme", "Ada"), create(ada, "globex", "Ada of Globex")
	triggers, err := os.ReadFile("../deploy/postgres/notify.sql")
	if err != nil {
		t.Fatal(err)
	}
	servers.PSQL(t, dsn, strings.Replace(string(triggers), "kca.members_table = 'members'", "kca.members_table = 'members_member'", 1))

	keycloak := []string{"KEYCLOAK_ISSUER=" + f.realm.Issuer(), "KCA_MIDDLEWARE=members.before.KeycloakMiddleware"}
	before := startUpstream(t, upstreamCommands["Django"](t), "", append(keycloak, database...)...)
	after := startUpstream(t, upstreamCommands["Django"](t), f.URL()+keysPath, database...)
	f.load(t, after, `ttl 1h
			store `+redis.URL()+` {
				namespace `+namespace+`
			}
			resolver sql {
				driver postgres
				dsn {env.MEMBERS_DSN}
				query "select kc_id, tenant, active, id from members_member where kc_id = :kc_id and tenant = :tenant"
				invalidate_on_notify members_changed
			}`)
	token := f.token(ada)

	for tenant, want := range map[string]struct{ id, name string }{"acme": {atAcme, "Ada"}, "globex": {atGlobex, "Ada of Globex"}} {
		t.Run("the same user of "+tenant, func(t *testing.T) {
			status, old, body := send(t, before+"/profile", asMember(token, tenant))
			if status != http.StatusOK || old.Get("X-Member-ID") != want.id {
				t.Fatalf("before: status %d, member %q, want %s: %s", status, old.Get("X-Member-ID"), want.id, body)
			}
			_, _, now := send(t, f.URL()+"/profile", asMember(token, tenant))
			if string(now) != string(body) || !strings.Contains(string(now), `"`+want.name+`"`) {
				t.Errorf("before, the profile was %s; now it is %s", body, now)
			}
			_, _, who := send(t, f.URL()+"/whoami", asMember(token, tenant))
			if expected := fmt.Sprintf(`{"member": %s, "kc_id": %q, "tenant": %q, "roles": []}`, want.id, ada.ID, tenant); string(who) != expected {
				t.Errorf("now it is %s, want %s", who, expected)
			}
		})
	}
	t.Run("nobody's tenant", func(t *testing.T) {
		for name, address := range map[string]string{"before": before, "now": f.URL()} {
			if status, _, body := send(t, address+"/whoami", asMember(token, "initech")); status != http.StatusForbidden {
				t.Errorf("%s: status %d: %s", name, status, body)
			}
		}
	})
	t.Run("what Caddy cached is read by Python", func(t *testing.T) {
		cache := startPeer(t, interpreter, map[string]any{"client": redis.URL(), "issuer": f.realm.Issuer(), "ttl": 3600})
		for tenant, id := range map[string]string{"acme": atAcme, "globex": atGlobex} {
			q := question{Tenant: tenant, KCID: ada.ID, IssuedAt: time.Now().Unix()}
			waitFor(t, "the entry in Redis", func() bool {
				send(t, f.URL()+"/whoami", asMember(token, tenant))
				a := cache.ask(q)
				return a.Found && a.ID == id
			})
		}
		if a := cache.ask(question{Tenant: "initech", KCID: ada.ID, IssuedAt: time.Now().Unix()}); a.Found {
			t.Errorf("a member of another tenant is found: %+v", a)
		}
	})
	t.Run("what Django changes holds at once", func(t *testing.T) {
		django(fmt.Sprintf("from members.models import Member; Member.objects.filter(pk=%s).update(active=False)", atAcme))
		waitFor(t, "refused by Caddy", func() bool {
			status, _, _ := send(t, f.URL()+"/whoami", asMember(token, "acme"))
			return status == http.StatusForbidden
		})
		if status, _, body := send(t, f.URL()+"/whoami", asMember(token, "globex")); status != http.StatusOK {
			t.Errorf("in the other tenant: status %d: %s", status, body)
		}
	})
}

// waitFor waits until something is so.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(settled); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

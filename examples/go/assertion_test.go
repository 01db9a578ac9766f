package upstream

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	issuer   = "https://shop.example.com"
	audience = "shop"
)

// world is a Caddy that serves keys, and an upstream.
type world struct {
	t        *testing.T
	keys     map[string]crypto.Signer
	served   atomic.Pointer[[]string]
	fetched  atomic.Int32
	broken   atomic.Bool
	verifier *Verifier
}

func newWorld(t *testing.T) *world {
	t.Helper()
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	_, other, _ := ed25519.GenerateKey(rand.Reader)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, keys: map[string]crypto.Signer{"ed": ed, "ec": ec, "rsa": weak, "other": other}}
	w.serve("ed", "ec", "rsa")
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		w.fetched.Add(1)
		if w.broken.Load() {
			rw.WriteHeader(http.StatusInternalServerError)
			return
		}
		var set jose.JSONWebKeySet
		for _, id := range *w.served.Load() {
			alg := map[string]string{"ec": "ES256", "rsa": "RS256"}[id]
			if alg == "" {
				alg = "EdDSA"
			}
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: w.keys[id].Public(), KeyID: id, Algorithm: alg, Use: "sig"})
		}
		if err := json.NewEncoder(rw).Encode(set); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	w.verifier = &Verifier{Issuer: issuer, Audience: audience, JWKSURL: server.URL}
	return w
}

func (w *world) serve(ids ...string) { w.served.Store(&ids) }

// later makes the keys look as if they had been fetched so long ago.
func (w *world) later(d time.Duration) {
	k := &w.verifier.keys
	k.asked, k.known = k.asked.Add(-d), k.known.Add(-d)
}

// draft is an assertion before it is signed.
type draft struct {
	key, kid, typ string
	alg           jose.SignatureAlgorithm
	claims        map[string]any
}

func (w *world) sign(change func(*draft)) string {
	w.t.Helper()
	now := time.Now().Unix()
	d := draft{key: "ed", kid: "ed", typ: "kca-assertion+jwt", alg: jose.EdDSA, claims: map[string]any{
		"iss": issuer, "aud": audience, "sub": "8d0c", "tenant": "acme", "member_id": "4711", "roles": []string{"editor"},
		"iat": now, "exp": now + 60,
	}}
	if change != nil {
		change(&d)
	}
	options := &jose.SignerOptions{}
	if d.typ != "" {
		options.WithType(jose.ContentType(d.typ))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: d.alg, Key: jose.JSONWebKey{Key: w.keys[d.key], KeyID: d.kid}}, options)
	if err != nil {
		w.t.Fatal(err)
	}
	payload, err := json.Marshal(d.claims)
	if err != nil {
		w.t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		w.t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

func (w *world) ask(assertions ...string) (int, *User) {
	w.t.Helper()
	var user *User
	handler := Handler(w.verifier, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { user = UserOf(r.Context()) }))
	r := httptest.NewRequestWithContext(w.t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("X-Member-ID", "4711") // which nobody has signed
	for _, text := range assertions {
		r.Header.Add("X-User-Assertion", text)
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, r)
	return recorder.Code, user
}

func TestTheUserIsTheAssertedOne(t *testing.T) {
	now := time.Now().Unix()
	for name, change := range map[string]func(*draft){
		"EdDSA":              nil,
		"ES256":              func(d *draft) { d.key, d.kid, d.alg = "ec", "ec", jose.ES256 },
		"several audiences":  func(d *draft) { d.claims["aud"] = []string{"mail", "shop"} },
		"over for a moment":  func(d *draft) { d.claims["exp"] = now - 5 },
		"from a clock ahead": func(d *draft) { d.claims["iat"] = now + 5 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			want := &User{Subject: "8d0c", Tenant: "acme", MemberID: "4711", Roles: []string{"editor"}}
			if status, user := w.ask(w.sign(change)); status != http.StatusOK || !reflect.DeepEqual(user, want) {
				t.Errorf("%d, %+v", status, user)
			}
		})
	}
}

func TestWithoutAnAssertionThereIsNoUser(t *testing.T) {
	if status, user := newWorld(t).ask(); status != http.StatusOK || user != nil {
		t.Errorf("%d, %+v", status, user)
	}
}

func TestWhatIsRefused(t *testing.T) {
	w := newWorld(t)
	now := time.Now().Unix()
	good := w.sign(nil)
	changed := strings.Split(good, ".")
	changed[1] = strings.Split(w.sign(func(d *draft) { d.claims["sub"] = "evil" }), ".")[1]
	bad := map[string][]string{
		"a signature that is cut": {good[:len(good)-4]},
		"other claims":            {strings.Join(changed, ".")},
		"two":                     {good, good},
		"rubbish":                 {"rubbish"},
		"empty":                   {""},
		"no signature":            {"eyJhbGciOiJub25lIn0." + strings.Split(good, ".")[1] + "."},
	}
	for name, change := range map[string]func(*draft){
		"another issuer":                   func(d *draft) { d.claims["iss"] = "https://evil.example.com" },
		"another audience":                 func(d *draft) { d.claims["aud"] = "mail" },
		"over":                             func(d *draft) { d.claims["exp"] = now - 12 },
		"from the future":                  func(d *draft) { d.claims["iat"] = now + 30 },
		"an access token":                  func(d *draft) { d.typ = "JWT" },
		"no type":                          func(d *draft) { d.typ = "" },
		"an unknown key":                   func(d *draft) { d.kid = "unknown" },
		"no key":                           func(d *draft) { d.kid = "" },
		"another key":                      func(d *draft) { d.key = "other" },
		"the key of another algorithm":     func(d *draft) { d.key, d.alg = "ec", jose.ES256 },
		"RSA, though its key is published": func(d *draft) { d.key, d.kid, d.alg = "rsa", "rsa", jose.RS256 },
	} {
		bad[name] = []string{w.sign(change)}
	}
	for _, claim := range []string{"iss", "aud", "sub", "tenant", "member_id", "roles", "iat", "exp"} {
		bad["no "+claim] = []string{w.sign(func(d *draft) { delete(d.claims, claim) })}
	}
	for name, assertions := range bad {
		t.Run(name, func(t *testing.T) {
			if status, user := w.ask(assertions...); status != http.StatusUnauthorized || user != nil {
				t.Errorf("%d, %+v", status, user)
			}
		})
	}
	if status, _ := w.ask(good); status != http.StatusOK {
		t.Errorf("a good one: %d", status)
	}
}

func TestSettingsThatWouldCheckNothingAcceptNothing(t *testing.T) {
	for _, change := range []func(*Verifier){func(v *Verifier) { v.Issuer = "" }, func(v *Verifier) { v.Audience = "" }} {
		w := newWorld(t)
		change(w.verifier)
		if status, _ := w.ask(w.sign(nil)); status != http.StatusUnauthorized {
			t.Errorf("%d", status)
		}
	}
}

func TestKeysAreFetchedRarely(t *testing.T) {
	w := newWorld(t)
	for i := range 10 {
		w.ask(w.sign(nil))
		w.ask(w.sign(func(d *draft) { d.kid = strconv.Itoa(i) }))
	}
	if got := w.fetched.Load(); got != 1 {
		t.Errorf("%d fetches", got)
	}
}

func TestKeysComeAndGo(t *testing.T) {
	w := newWorld(t)
	w.serve("ec")
	ec := w.sign(func(d *draft) { d.key, d.kid, d.alg = "ec", "ec", jose.ES256 })
	if status, _ := w.ask(ec); status != http.StatusOK {
		t.Fatalf("%d", status)
	}
	w.serve("ed")
	w.later(6 * time.Second)
	if status, _ := w.ask(w.sign(nil)); status != http.StatusOK {
		t.Errorf("a new key: %d", status)
	}
	if status, _ := w.ask(ec); status != http.StatusUnauthorized {
		t.Errorf("a withdrawn key: %d", status)
	}
	w.serve("ec")
	w.later(6 * time.Minute)
	if status, _ := w.ask(w.sign(nil)); status != http.StatusUnauthorized {
		t.Errorf("a key withdrawn without another one being asked for: %d", status)
	}
}

func TestKeysThatCannotBeHad(t *testing.T) {
	w := newWorld(t)
	w.broken.Store(true)
	if status, _ := w.ask(w.sign(nil)); status != http.StatusServiceUnavailable {
		t.Errorf("none so far: %d", status)
	}
	w.broken.Store(false)
	w.later(6 * time.Second)
	if status, _ := w.ask(w.sign(nil)); status != http.StatusOK {
		t.Errorf("had again: %d", status)
	}
	w.broken.Store(true)
	w.later(6 * time.Minute)
	if status, _ := w.ask(w.sign(nil)); status != http.StatusOK {
		t.Errorf("those of before will do: %d", status)
	}
	w.later(time.Hour)
	if status, _ := w.ask(w.sign(nil)); status != http.StatusServiceUnavailable {
		t.Errorf("but not for ever: %d", status)
	}
}

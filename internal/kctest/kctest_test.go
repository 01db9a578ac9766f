package kctest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

var allAlgorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// fetch gets a JSON document as any client would.
func fetch[T any](t *testing.T, address string) T {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", address, resp.Status)
	}
	var v T
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// claimsOf verifies a token with a library this package does not use.
func claimsOf(t *testing.T, r *Realm, raw string) (jose.Header, map[string]any) {
	t.Helper()
	algorithms := make([]jose.SignatureAlgorithm, 0, len(allAlgorithms))
	for _, alg := range allAlgorithms {
		algorithms = append(algorithms, jose.SignatureAlgorithm(alg))
	}
	jws, err := jose.ParseSignedCompact(raw, algorithms)
	if err != nil {
		t.Fatal(err)
	}
	document := fetch[struct {
		JWKS string `json:"jwks_uri"`
	}](t, r.URL()+"/.well-known/openid-configuration")
	set := fetch[jose.JSONWebKeySet](t, document.JWKS)
	header := jws.Signatures[0].Protected
	keys := set.Key(header.KeyID)
	if len(keys) != 1 || keys[0].Use != "sig" || keys[0].Algorithm != header.Algorithm {
		t.Fatalf("%d keys for %q: %+v", len(keys), header.KeyID, keys)
	}
	payload, err := jws.Verify(keys[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return header, claims
}

func TestTokensVerifyWithThePublishedKeys(t *testing.T) {
	realm := Start(t).Realm("acme")
	realm.SetDefaultAlgorithm("ES256")
	alice := realm.AddUser(User{Username: "alice", Email: "a@example.test", GivenName: "Alice", RealmRoles: []string{"admin"}})
	for _, alg := range allAlgorithms {
		t.Run(alg, func(t *testing.T) {
			header, claims := claimsOf(t, realm, realm.AccessToken(alice, Algorithm(alg), Claim("x", 1), Without("acr")))
			if header.Algorithm != alg || header.ExtraHeaders["typ"] != "JWT" {
				t.Errorf("header %+v", header)
			}
			for name, want := range map[string]any{
				"iss": realm.URL(), "sub": alice.ID, "typ": "Bearer", "azp": "app", "aud": "account",
				"preferred_username": "alice", "email": "a@example.test", "email_verified": false, "name": "Alice",
				"x": 1.0, "acr": nil,
			} {
				if claims[name] != want {
					t.Errorf("%s is %v, want %v", name, claims[name], want)
				}
			}
		})
	}
}

func TestRotatedAndDisabledKeys(t *testing.T) {
	realm := Start(t).Realm("acme")
	realm.SetDefaultAlgorithm("EdDSA")
	old := realm.ActiveKey("EdDSA")
	active := realm.Rotate("EdDSA")
	header, _ := claimsOf(t, realm, realm.AccessToken(User{ID: "a"}))
	if header.KeyID != active.ID || active.ID == old.ID {
		t.Errorf("signed by %q", header.KeyID)
	}
	published := func() (ids, uses []string) {
		for _, k := range fetch[jose.JSONWebKeySet](t, realm.JWKSURL()).Keys {
			ids, uses = append(ids, k.KeyID), append(uses, k.Use)
		}
		return ids, uses
	}
	if ids, uses := published(); len(ids) != 3 || strings.Join(uses, " ") != "sig sig enc" {
		t.Errorf("published %q for %q", ids, uses)
	}
	realm.Disable(old)
	if ids, _ := published(); len(ids) != 2 || ids[0] != active.ID {
		t.Errorf("published %q", ids)
	}
}

func TestPasswordGrant(t *testing.T) {
	server := Start(t)
	server.SetClock(func() time.Time { return time.Unix(1795255000, 0) })
	realm := server.Realm("acme")
	realm.SetDefaultAlgorithm("ES256")
	realm.AddUser(User{Username: "alice", Password: "wonder"})
	realm.AddClient(Client{ID: "shop", Audience: []string{"api"}})
	realm.AddClient(Client{ID: "secretive", Secret: "s3cret"})
	good := url.Values{
		"grant_type": {"password"}, "client_id": {"shop"}, "username": {"alice"}, "password": {"wonder"},
	}
	for name, test := range map[string]struct {
		change map[string]string
		status int
		code   string
	}{
		"as it should be":       {nil, 200, ""},
		"a wrong password":      {map[string]string{"password": "x"}, 401, "invalid_grant"},
		"an unknown user":       {map[string]string{"username": "mallory"}, 401, "invalid_grant"},
		"an unknown client":     {map[string]string{"client_id": "x"}, 401, "invalid_client"},
		"no client secret":      {map[string]string{"client_id": "secretive"}, 401, "invalid_client"},
		"with a client secret":  {map[string]string{"client_id": "secretive", "client_secret": "s3cret"}, 200, ""},
		"an unknown grant type": {map[string]string{"grant_type": "implicit"}, 400, "unsupported_grant_type"},
	} {
		t.Run(name, func(t *testing.T) {
			form := url.Values{}
			maps.Copy(form, good)
			for field, value := range test.change {
				form.Set(field, value)
			}
			status, answer := post(t, realm.TokenURL(), form)
			if status != test.status || test.code != "" && answer["error"] != test.code {
				t.Fatalf("got %d, %v", status, answer)
			}
			if status == http.StatusOK {
				raw, _ := answer["access_token"].(string)
				_, claims := claimsOf(t, realm, raw)
				if claims["azp"] != form.Get("client_id") || claims["exp"] != 1795255300.0 {
					t.Errorf("claims %v", claims)
				}
			}
		})
	}
}

func post(t *testing.T, address string, form url.Values) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer
}

func TestFaults(t *testing.T) {
	realm := Start(t).Realm("acme")
	realm.SetDefaultAlgorithm("ES256")
	gate := make(chan struct{})
	close(gate)
	for name, test := range map[string]struct {
		fault Fault
		want  string // status and beginning of the body; "" for no answer
	}{
		"hang up":         {Hangup(), ""},
		"never an answer": {Hang(), ""},
		"too slow":        {Slow(time.Hour), ""},
		"slow":            {Slow(time.Millisecond), `200 {"keys":[{`},
		"an open gate":    {Gate(gate), `200 {"keys":[{`},
		"an error":        {Status(503), "503 <html>"},
		"rubbish":         {Body("{}"), "200 {}"},
		"too much":        {Oversized(4), "200     "},
	} {
		t.Run(name, func(t *testing.T) {
			realm.Break(test.fault, Certs)
			defer realm.Repair()
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, realm.JWKSURL(), http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			before := realm.Requests(Certs)
			got := ""
			resp, err := new(http.Client).Do(req)
			if err == nil {
				defer resp.Body.Close()
				body, _ := io.ReadAll(resp.Body)
				got = resp.Status[:4] + string(body)
			}
			if (got == "") != (test.want == "") || !strings.HasPrefix(got, test.want) {
				t.Errorf("got %.40q (%v)", got, err)
			}
			if realm.Requests(Certs) == before {
				t.Error("not counted")
			}
		})
	}
}

func TestAServerStopsAndStartsAtItsAddress(t *testing.T) {
	server := Start(t)
	realm := server.Realm("acme")
	realm.SetDefaultAlgorithm("ES256")
	address := server.URL()
	before := fetch[jose.JSONWebKeySet](t, realm.JWKSURL())
	server.Stop()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Error("it still answers")
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err == nil {
		t.Error("started twice")
	}
	after := fetch[jose.JSONWebKeySet](t, realm.JWKSURL())
	if server.URL() != address || before.Keys[0].KeyID != after.Keys[0].KeyID {
		t.Error("another address, or other keys")
	}
	_, err = NewServerAt(strings.TrimPrefix(address, "http://"))
	if err == nil || errors.Unwrap(err) == nil {
		t.Errorf("two servers at one address: %v", err)
	}
}

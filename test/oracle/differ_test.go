package oracle

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
)

var (
	mutations = flag.Int("mutations", 20_000, "how many tokens to compare")
	seed      = flag.Uint64("seed", 1, "of the changes; keys and signatures are new in each run")
)

// stricter are the kinds of token that we refuse and the other accepts, told apart by
// our reason and a part of its hint, and why that is right. One that is not here is a
// mistake in one of the two.
var stricter = []struct {
	reason token.Reason
	hint   string
	why    string
}{
	{token.ReasonTooLarge, "", "a token has at most 16 KiB"},
	{token.ReasonMalformed, "joined by dots", "base64url has one spelling: no spare bits, padding or line breaks"},
	{token.ReasonMalformed, "in other letters", "what reads the header elsewhere may not look at letter case"},
	{token.ReasonMalformed, "the header is not one JSON object", "the header is strict JSON, without repeated names"},
	{token.ReasonMalformed, "the claims are not one JSON object", "the claims are strict JSON: UTF-8, and nothing after them"},
	{token.ReasonMalformed, "the header has crit", "crit that is null is there all the same"},
	{token.ReasonMalformed, "the header has b64", "b64 that is null is there all the same"},
	{token.ReasonAmbiguous, "stands twice", "which of two claims counts is a matter of taste"},
	{token.ReasonAmbiguous, "in letter case only", "what reads the claims elsewhere may not look at letter case"},
	{token.ReasonMalformed, "out of the range", "a number that is no float64 is another one to each reader"},
	{token.ReasonMalformed, "is not of its type", "a header parameter that the standard defines is of its type, and null is of none"},
	{token.ReasonUnknownKey, "key of its own", "a token that brings a key is not one of the issuer's"},
	{token.ReasonSignature, "not for the token's alg", "the header names the algorithm of the key; the other goes by the key alone"},
	{token.ReasonClaimType, "not printable", "sub and sid go into logs, keys and headers: 255 printable bytes at most"},
	{token.ReasonClaimType, "acr is not a string", "a claim that requirements look at is of its type"},
	{token.ReasonClaimType, "nonce is not", "a claim that the standard defines is of its type, needed or not"},
	{token.ReasonClaimType, "at_hash is not", "a claim that the standard defines is of its type, needed or not"},
	{token.ReasonClaimType, "from other sources", "go-oidc refuses claims that say where others are to be had, unless all is there"},
}

// whyStricter returns why a refusal of ours is right all the same.
func whyStricter(refusal *token.Error) (string, bool) {
	for _, each := range stricter {
		if refusal.Reason == each.reason && strings.Contains(fmt.Sprint(refusal.Hint, refusal.Err), each.hint) {
			return each.why, true
		}
	}
	return "", false
}

// lastPart is the innermost of the texts that an error joins by colons.
func lastPart(err error) string {
	text := err.Error()
	return text[strings.LastIndexByte(text, ':')+1:]
}

// published answers every request with one text.
type published []byte

func (p published) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(p)), Request: r}, nil
}

func TestWeAcceptNothingThatAStrictVerifierRefuses(t *testing.T) {
	now := time.Unix(1795255000, 0)
	m := &mutator{Rand: rand.New(rand.NewPCG(*seed, 0)), now: now.Unix()} //nolint:gosec // has to be repeatable
	set := map[string]any{}
	jwks := []any{}
	for _, alg := range []string{"EdDSA", "ES256", "RS256", "PS256"} {
		m.keys = append(m.keys, kctest.NewKey(alg))
		m.other = append(m.other, kctest.NewKey(alg))
		jwks = append(jwks, m.keys[len(m.keys)-1].JWK())
	}
	set["keys"] = jwks
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	theirs := &oracle{now: now}
	if theirs.keys, err = jwk.Parse(text); err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return now }
	keys, err := token.NewKeySet(token.KeySetConfig{
		Issuer: issuer, JWKSURL: issuer + "/certs", Now: clock, Client: &http.Client{Transport: published(text)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	ours, err := token.New(token.Config{Issuer: issuer, Keys: keys, Audiences: []string{audience}, Now: clock})
	if err != nil {
		t.Fatal(err)
	}

	accepted, refused, byUsOnly := map[string]int{}, map[string]int{}, map[string]int{}
	reported := map[string]bool{} // kinds of mistakes: one example of each is enough
	report := func(mistake, kind string, detail any, raw string) {
		if !reported[mistake] {
			reported[mistake] = true
			t.Errorf("%s: %s: %v\n%s", kind, mistake, detail, readable(raw))
		}
	}
	public := make([]crypto.PublicKey, 0, len(m.keys))
	for _, key := range m.keys {
		public = append(public, key.Public())
	}
	goOIDC := plain(public, now)
	for range *mutations {
		kind, raw := m.token()
		tok, err := ours.Verify(t.Context(), raw)
		objection := theirs.verify(raw)
		if err == nil {
			accepted[kind]++
			if err := agrees(t.Context(), goOIDC, raw, tok); err != nil {
				report("we accept what go-oidc refuses: "+lastPart(err), kind, err, raw)
			}
			switch {
			case objection != nil:
				report("we accept what the other refuses: "+lastPart(objection), kind, objection, raw)
			case tok.Subject == "":
				report("we accept nobody", kind, tok, raw)
			}
			continue
		}
		refused[kind]++
		var refusal *token.Error
		if !errors.As(err, &refusal) {
			report("we refuse without a reason", kind, err, raw)
			continue
		}
		if objection == nil {
			why, ok := whyStricter(refusal)
			if !ok {
				mistake := fmt.Sprintf("we refuse what the other accepts, for %s (%.40s)", refusal.Reason, refusal.Hint)
				report(mistake, kind, fmt.Sprint(refusal.Hint, refusal.Err), raw)
			}
			byUsOnly[why]++
		}
	}
	t.Logf("accepted %v", accepted)
	t.Logf("refused %v", refused)
	for _, each := range stricter {
		t.Logf("refused by us only, %d times: %s", byUsOnly[each.why], each.why)
	}
	// The comparison is worth something only if it comes by both verdicts.
	for _, kind := range []string{"claims", "header", "text of the claims", "text of the header", "structure", "signature", "characters"} {
		if refused[kind] == 0 {
			t.Errorf("%s: nothing was refused", kind)
		}
	}
	if accepted["nothing"] == 0 || refused["nothing"] != 0 || accepted["claims"] == 0 || accepted["header"] == 0 {
		t.Error("too little was accepted")
	}
}

// readable decodes what it can of a token, for the report.
func readable(raw string) string {
	parts := strings.Split(raw, ".")
	for i, part := range parts[:min(2, len(parts))] {
		if text, err := base64.RawURLEncoding.DecodeString(part); err == nil {
			parts[i] = fmt.Sprintf("%q", text)
		}
	}
	text := strings.Join(slices.Compact(parts), "\n\t")
	return "\t" + text[:min(len(text), 1200)]
}

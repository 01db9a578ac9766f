package token

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/jws"
)

// cookbookFile is an example of RFC 7520, RFC 7797 or RFC 8037.
type cookbookFile struct {
	Input struct {
		Key jsontext.Value `json:"key"`
	} `json:"input"`
	Output map[string]jsontext.Value `json:"output"` // by serialisation
}

// keySet returns the key set that publishes the example's key, of which it shows the
// private half, too. That of RFC 7520 §4.8 has several.
func (c cookbookFile) keySet(t *testing.T) []byte {
	t.Helper()
	var all []map[string]any
	if c.Input.Key.Kind() != '[' {
		c.Input.Key = slices.Concat(jsontext.Value("["), c.Input.Key, jsontext.Value("]"))
	}
	if err := json.Unmarshal(c.Input.Key, &all); err != nil {
		t.Fatal(err)
	}
	for _, key := range all {
		maps.DeleteFunc(key, func(name string, _ any) bool {
			return slices.Contains([]string{"d", "p", "q", "dp", "dq", "qi", "title"}, name)
		})
		if key["kid"] == nil {
			key["kid"] = "the key without id"
		}
	}
	text, err := json.Marshal(map[string]any{"keys": all})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The payloads are no claims, so the examples go through what comes before them. Three
// of them may be accepted: RS256 always, PS384 and ES512 where they are configured.
// The Ed25519 example has the right signature, and no key id.
func TestJOSECookbook(t *testing.T) {
	every := append(jws.DefaultAlgorithms(), "PS384", "ES512")
	type verdict struct{ usual, everyAlgorithm Reason }
	const notCompact = Reason("not compact")
	const accepted = Reason("")
	compact := map[string]verdict{
		"jws/4_1.rsa_v15_signature.json":               {accepted, accepted},
		"jws/4_2.rsa-pss_signature.json":               {ReasonAlgorithm, accepted},
		"jws/4_3.ecdsa_signature.json":                 {ReasonAlgorithm, accepted},
		"jws/4_4.hmac-sha2_integrity_protection.json":  {ReasonAlgorithm, ReasonAlgorithm},
		"jws/4_5.signature_with_detached_content.json": {ReasonAlgorithm, ReasonAlgorithm},
		"rfc7797/hmac-sha2_b64_false.json":             {notCompact, notCompact}, // its payload is plain text
		"curve25519/jws.json":                          {ReasonUnknownKey, ReasonUnknownKey},
	}
	files, err := filepath.Glob("testdata/jose-cookbook/*/*.json")
	if err != nil || len(files) != 11 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, path := range files {
		name := filepath.ToSlash(strings.TrimPrefix(path, filepath.FromSlash("testdata/jose-cookbook/")))
		example := decodeFile[cookbookFile](t, "jose-cookbook", filepath.FromSlash(name))
		if _, hasCompact := example.Output["compact"]; hasCompact != (compact[name] != verdict{} || name == "jws/4_1.rsa_v15_signature.json") {
			t.Errorf("%s: no verdict on its compact form, or no such form", name)
		}
		for form, text := range example.Output {
			expected := verdict{notCompact, notCompact}
			raw := string(text)
			if form == "compact" {
				expected = compact[name]
				if err := json.Unmarshal(text, &raw); err != nil {
					t.Fatal(err)
				}
			}
			for which, algorithms := range map[string][]string{"usual": nil, "every": every} {
				t.Run(name+" "+form+", "+which+" algorithms", func(t *testing.T) {
					v, _ := verifierOf(t, "https://kc.test/realms/r", example.keySet(t), time.Unix(1795255000, 0),
						func(c *Config) { c.Algorithms = algorithms })
					err := v.verifySignatureOf(t, raw)
					reason := ReasonOf(err)
					if errors.Is(err, errNotCompact) {
						reason = notCompact
					}
					want := expected.usual
					if which == "every" {
						want = expected.everyAlgorithm
					}
					if reason != want || (err == nil) != (want == accepted) {
						t.Errorf("got %v, want %q", err, want)
					}
				})
			}
		}
	}
}

func TestJOSECookbookEd25519(t *testing.T) {
	example := decodeFile[cookbookFile](t, "jose-cookbook", "curve25519", "jws.json")
	keys, err := parseKeys(example.keySet(t))
	if err != nil {
		t.Fatal(err)
	}
	found, _ := keys.find("the key without id", "EdDSA")
	if found == nil {
		t.Fatal("the key is not usable")
	}
	var raw string
	if err := json.Unmarshal(example.Output["compact"], &raw); err != nil {
		t.Fatal(err)
	}
	_, _, signature, err := decodeCompact(raw)
	if err != nil {
		t.Fatal(err)
	}
	alg, _ := jws.Named("EdDSA")
	signed := []byte(raw[:strings.LastIndexByte(raw, '.')])
	if !alg.Verify(found.public, signed, signature) {
		t.Error("the signature is refused")
	}
	signed[len(signed)-1]++
	if alg.Verify(found.public, signed, signature) {
		t.Error("another text has it, too")
	}
}

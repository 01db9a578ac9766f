package token

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

const someClaims = `{
	"sub": "alice", "n": 9007199254740993, "half": 0.5, "yes": true, "nothing": null,
	"realm_access": {"roles": ["a", "b"]},
	"https://example.com/tenant": "acme",
	"a.b": {"c": 1}, "a": {"b": {"d": 2}, "b.c": 3},
	"organization": {"zeta": {"id": "1"}, "alpha": {}},
	"mixed": ["x", {"y": 1}], "numbers": [1, true, "x"], "": "unnamed"
}`

func tokenOf(text string) *Token {
	tok := new(Token)
	tok.claims.text = []byte(text)
	return tok
}

func TestClaimPaths(t *testing.T) {
	for path, want := range map[string]string{
		"sub":                        "alice",
		"n":                          "9007199254740993", // not …992
		"half":                       "0.5",
		"yes":                        "true",
		"nothing":                    "",
		"realm_access.roles":         `["a","b"]`,
		"realm_access.roles.1":       "b",
		"https://example.com/tenant": "acme",
		"a.b":                        `{"c":1}`, // the longest name wins
		"a.b.c":                      "1",
		"a.b.d":                      "2", // and gives way where it leads nowhere
		"organization.zeta.id":       "1",
		"organization":               `{"alpha":{},"zeta":{"id":"1"}}`,
	} {
		t.Run(path, func(t *testing.T) {
			claim, ok := tokenOf(someClaims).Claim(path)
			if !ok || Text(claim) != want {
				t.Errorf("got %q, %t", Text(claim), ok)
			}
		})
	}
	for _, path := range []string{
		"", ".", "SUB", "sub.", ".sub", "sub.x", "realm_access.roles.2", "realm_access.roles.-1", "realm_access..roles",
		"nothing.x", "a.b.x", "realm_access.roles.99999999999999999999",
	} {
		if claim, ok := tokenOf(someClaims).Claim(path); ok {
			t.Errorf("%q leads to %v", path, claim)
		}
	}
}

func TestClaimsAsLists(t *testing.T) {
	for path, want := range map[string]string{
		"sub":                "alice",
		"yes":                "true",
		"realm_access.roles": "a b",
		"organization":       "alpha zeta",
		"numbers":            "1 true x",
		"nothing":            "no list",
		"mixed":              "no list",
	} {
		t.Run(path, func(t *testing.T) {
			claim, _ := tokenOf(someClaims).Claim(path)
			got := "no list"
			if texts, ok := Texts(claim); ok {
				got = strings.Join(texts, " ")
			}
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestObjectsAreReadStrictly(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                "",
		"null":                   "null",
		"a list":                 "[]",
		"two objects":            "{}{}",
		"a trailing letter":      "{}x",
		"a trailing comma":       `{"a":1,}`,
		"a byte order mark":      "\ufeff{}",
		"space before it":        " {}",
		"a line break after it":  "{}\n",
		"a brace of others":      `{"a":[}`,
		"unfinished":             `{"a":1`,
		"a repeated name":        `{"a":1,"a":1}`,
		"repeated, but escaped":  `{"a":1,"\u0061":1}`,
		"a repeated name within": `{"a":{"b":1,"b":2}}`,
		"repeated within a list": `{"a":[{"b":1,"b":2}]}`,
		"invalid UTF-8":          "{\"a\":\"\xff\"}",
		"half a surrogate pair":  `{"a":"\ud800"}`,
		"a number with a zero":   `{"a":01}`,
		"not a number":           `{"a":NaN}`,
		"a comment":              `{"a":1/**/}`,
		"single quotes":          `{'a':1}`,
		"too deep":               `{"a":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			if members, err := parseObject([]byte(text)); err == nil {
				t.Errorf("got %v", members)
			}
		})
	}
	members, err := parseObject([]byte("{ \"\\u0061\" : [ 1 ] ,\n\"b\":\"\\n\"}"))
	if err != nil || len(members) != 2 || string(members[0].name) != "a" || string(members[0].value) != "[ 1 ]" {
		t.Errorf("got %v, %v", members, err)
	}
	if text, ok := members.text("b"); !ok || text != "\n" {
		t.Errorf("got %q, %t", text, ok)
	}
}

func FuzzClaims(f *testing.F) {
	_, rows := forgedTokens(f)
	for _, row := range rows {
		if _, payload, _, err := decodeCompact(row.Token); err == nil {
			f.Add(payload, "realm_access.roles.0")
		}
	}
	f.Add([]byte(someClaims), "a.b.c")
	f.Fuzz(func(t *testing.T, text []byte, path string) {
		p, err := parsePayload(text)
		if err != nil {
			return
		}
		// What the scanner took, a decoder of the same strictness takes, and sees
		// the same in it.
		var all map[string]any
		if err := json.Unmarshal(text, &all, json.WithUnmarshalers(exactNumbers)); err != nil || len(all) != len(p.object) {
			t.Fatalf("%d members, decoded %d: %v", len(p.object), len(all), err)
		}
		for _, name := range []string{"sub", "iss", "typ"} {
			want, isText := all[name].(string)
			if got, ok := p.text(name); ok != isText || got != want {
				t.Errorf("%s is %q, decoded %q", name, got, want)
			}
		}
		if tok, err := newToken(&p, false); err == nil {
			if tok.Subject == "" || len(tok.Subject) > maxSubject || tok.Subject != all["sub"] {
				t.Errorf("sub is %q", tok.Subject)
			}
			claim, _ := tok.Claim(path)
			_ = Text(claim)
			_, _ = Texts(claim)
		}
	})
}

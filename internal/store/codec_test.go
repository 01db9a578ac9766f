package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// testGeneration and testPosition are in force on each fakeRedis.
const (
	testGeneration = "testgeneration"
	testPosition   = "1767225590000-0"
)

var testMark = mark{testGeneration, sighting{
	position{millis: 1767225590000}, newEventID(map[string]string{"kind": "generation", "id": testGeneration}),
}}

const aliceText = `{"v":3,"gen":"testgeneration","pos":"1767225590000-0","event":"90af8b00f1573ec1","tenant":"acme","issuer":"https://sso.example.com/realms/main",` +
	`"kc_id":"8d0c5a3e-0000-4000-8000-000000000001","loaded_at":1767225600000,"expires":1767225660000,"keep":1767225660000,` +
	`"member":{"kc_id":"8d0c5a3e-0000-4000-8000-000000000001","tenant":"acme",` +
	`"issuer":"https://sso.example.com/realms/main","active":true,"id":"4711",` +
	`"attributes":{"none":[],"roles":["admin","billing"],"team":"blue"}}}`

func mustEncode(t testing.TB, e *Entry) []byte {
	t.Helper()
	value, err := encode(e, testMark)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func sameEntry(a, b *Entry) bool {
	x, y := &a.Member, &b.Member
	return a.Tenant == b.Tenant && a.Issuer == b.Issuer && a.KCID == b.KCID &&
		a.LoadedAt().Equal(b.LoadedAt()) && a.life == b.life && a.keep == b.keep &&
		x.KCID == y.KCID && x.Tenant == y.Tenant && x.Issuer == y.Issuer && x.Active == y.Active && x.ID == y.ID &&
		maps.Equal(maps.Collect(x.AllAttributes()), maps.Collect(y.AllAttributes()))
}

func TestEnvelopeReadsAsDocumented(t *testing.T) {
	if got := string(mustEncode(t, aliceEntry())); got != aliceText {
		t.Errorf("got  %s\nwant %s", got, aliceText)
	}
}

func TestEntriesComeBackAsTheyWere(t *testing.T) {
	tests := map[string]func(*Entry){
		"a member with all there is": func(*Entry) {},
		"no attributes":              func(e *Entry) { e.Member.Attributes = nil },
		"no issuer of its own":       func(e *Entry) { e.Member.Issuer = "" },
		"inactive":                   func(e *Entry) { e.Member.Active = false },
		"an empty id":                func(e *Entry) { e.Member.ID = "" },
		"text with markup, quotes and control characters": func(e *Entry) {
			e.Member.Attributes = map[string]member.Value{"</script>&\"\\\r\n\x00\u2028": member.Text("<b>\x7f\u00e9\U0001F600")}
		},
		"an empty attribute": func(e *Entry) { e.Member.Attributes = map[string]member.Value{"": member.Text("")} },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			entry := aliceEntry()
			change(entry)
			got, at, err := decode(mustEncode(t, entry))
			if err != nil {
				t.Fatal(err)
			}
			if !sameEntry(got, entry) || at != testMark {
				t.Errorf("got %+v %+v", got, got.Member)
			}
		})
	}
}

func TestEncodeRefusesWhatWouldComeBackDifferent(t *testing.T) {
	tests := map[string]func(*Entry){
		"an attribute that is not UTF-8": func(e *Entry) { e.Member.Attributes["x"] = member.Text("\xff") },
		"an item that is not UTF-8":      func(e *Entry) { e.Member.Attributes["x"] = member.List("a", "\xff") },
		"a name that is not UTF-8":       func(e *Entry) { e.Member.Attributes["\xff"] = member.Text("") },
		"a kc_id that is not UTF-8":      func(e *Entry) { e.KCID = "\xff" },
		"an id that is not UTF-8":        func(e *Entry) { e.Member.ID = "\xff" },
		"more than 64 KiB":               func(e *Entry) { e.Member.ID = strings.Repeat("x", MaxEntrySize) },
		"too many attributes": func(e *Entry) {
			for i := range MaxAttributes {
				e.Member.Attributes[fmt.Sprint(i)] = member.Text("")
			}
		},
		"nobody":                 func(e *Entry) { e.KCID = "" },
		"a life that is no life": func(e *Entry) { e.life = 0 },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			entry := aliceEntry()
			change(entry)
			if value, err := encode(entry, testMark); !errors.Is(err, ErrInvalid) {
				t.Errorf("error is %v, value %.200s", err, value)
			}
		})
	}
}

func TestDecodeRefusesWhatIsNoEntry(t *testing.T) {
	replace := func(old, with string) string {
		if strings.Count(aliceText, old) < 1 {
			t.Fatalf("%s is not in the text", old)
		}
		return strings.Replace(aliceText, old, with, 1)
	}
	tests := map[string]string{
		"CI-007 nothing":                         "",
		"CI-008 null":                            "null",
		"CI-008 true":                            "true",
		"CI-008 a number":                        "42",
		"CI-008 a string":                        `"x"`,
		"CI-008 a list":                          "[]",
		"CI-008 an empty object":                 "{}",
		"CI-008 rubbish":                         strings.Repeat("\xde\xad\xbe\xef", 256),
		"CI-009 more than the largest entry":     aliceText + strings.Repeat(" ", MaxEntrySize),
		"CI-010 ten thousand nested lists":       replace(`["admin","billing"]`, strings.Repeat("[", 9999)+strings.Repeat("]", 9999)),
		"CI-010 a number too large":              replace("1767225600000", "1e1000000"),
		"CI-011 a gob stream":                    "\x1d\xff\xd3\x02\x01\x01\x0erec",
		"CI-012 an older version":                replace(`"v":3`, `"v":1`),
		"CI-012 a newer version":                 replace(`"v":3`, `"v":99`),
		"CI-012 no version":                      replace(`"v":3,`, ""),
		"CI-012 a version that is a string":      replace(`"v":3`, `"v":"1"`),
		"CI-013 an unknown name":                 replace(`"v":3`, `"v":3,"x":1`),
		"CI-013 an unknown name in the member":   replace(`"active":true`, `"active":true,"admin":true`),
		"CI-013 a name twice":                    replace(`"v":3`, `"v":3,"v":3`),
		"CI-013 a member's name twice":           replace(`"active":true`, `"active":false,"active":true`),
		"CI-013 an attribute twice":              replace(`"team":"blue"`, `"team":"blue","team":"red"`),
		"CI-013 an attribute twice, escaped":     replace(`"team":"blue"`, `"team":"blue","te\u0061m":"red"`),
		"CI-013 a twin in another case":          replace(`"active":true`, `"active":true,"Active":true`),
		"CI-013 a name in another case":          replace(`"kc_id"`, `"KC_ID"`),
		"no generation":                          replace(`"gen":"testgeneration",`, ""),
		"an empty generation":                    replace("testgeneration", ""),
		"a generation that is null":              replace(`"testgeneration"`, "null"),
		"a generation of other characters":       replace("testgeneration", "test generation"),
		"a generation that is a text":            replace("testgeneration", strings.Repeat("x", maxPartLength+1)),
		"no position":                            replace(`"pos":"1767225590000-0",`, ""),
		"an empty position":                      replace(`"1767225590000-0"`, `""`),
		"a position without a number":            replace(`"1767225590000-0"`, `"1767225590000"`),
		"a position spelt otherwise":             replace(`"1767225590000-0"`, `"1767225590000-00"`),
		"a position with a sign":                 replace(`"1767225590000-0"`, `"+1767225590000-0"`),
		"a position beyond 64 bits":              replace(`"1767225590000-0"`, `"18446744073709551616-0"`),
		"no event":                               replace(`"event":"90af8b00f1573ec1",`, ""),
		"an event that is null":                  replace(`"90af8b00f1573ec1"`, "null"),
		"an empty event":                         replace("90af8b00f1573ec1", ""),
		"a shorter event":                        replace("90af8b00f1573ec1", "90af8b00f1573e"),
		"a longer event":                         replace("90af8b00f1573ec1", "90af8b00f1573ec1ff"),
		"an event in upper case":                 replace("90af8b00f1573ec1", "90AF8B00F1573EC1"),
		"a missing name":                         replace(`"kc_id":"8d0c5a3e-0000-4000-8000-000000000001",`, ""),
		"a member without active":                replace(`"active":true,`, ""),
		"active that is null":                    replace(`"active":true`, `"active":null`),
		"active that is a string":                replace(`"active":true`, `"active":"true"`),
		"no member":                              aliceText[:strings.Index(aliceText, `,"member"`)] + "}",
		"a member that is null":                  aliceText[:strings.Index(aliceText, `"member"`)] + `"member":null}`,
		"an issuer that is null":                 strings.Replace(aliceText, `"issuer":"https://sso.example.com/realms/main","active"`, `"issuer":null,"active"`, 1),
		"attributes that are null":               aliceText[:strings.Index(aliceText, `"attributes"`)] + `"attributes":null}}`,
		"attributes that are a list":             aliceText[:strings.Index(aliceText, `"attributes"`)] + `"attributes":[]}}`,
		"an attribute that is null":              replace(`"blue"`, "null"),
		"an attribute that is a number":          replace(`"blue"`, "1"),
		"an attribute that is an object":         replace(`"blue"`, "{}"),
		"a list with null":                       replace(`"billing"`, "null"),
		"a list with a list":                     replace(`"billing"`, `["x"]`),
		"bytes that are not UTF-8":               replace("blue", "\xff"),
		"half a surrogate pair":                  replace("blue", `\ud800`),
		"something after it":                     aliceText + "{}",
		"a time that is a fraction":              replace("1767225600000", "1767225600000.5"),
		"a time that is a string":                replace("1767225600000", `"1767225600000"`),
		"a time before 1970":                     replace("1767225600000", "-1"),
		"a time no clock shows":                  replace("1767225660000", "253402300800000"),
		"a time beyond 64 bits":                  replace("1767225660000", "9223372036854775808"),
		"an end before the beginning":            replace("1767225660000", "1767225599999"),
		"no kc_id":                               replace(`"kc_id":"8d0c5a3e-0000-4000-8000-000000000001"`, `"kc_id":""`),
		"no tenant":                              replace(`"tenant":"acme"`, `"tenant":""`),
		"no issuer":                              replace(`"issuer":"https://sso.example.com/realms/main"`, `"issuer":""`),
		"more attributes than an entry may have": aliceText[:strings.Index(aliceText, `"none"`)] + manyNames(MaxAttributes+1) + "}}}",
	}
	for i := range aliceText {
		tests[fmt.Sprintf("CI-006 the first %d bytes", i)] = aliceText[:i]
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			entry, _, err := decode([]byte(text))
			if !errors.Is(err, ErrInvalid) || entry != nil {
				t.Errorf("got %+v, error %v", entry, err)
			}
			if err != nil && strings.Contains(err.Error(), "8d0c") {
				t.Errorf("the error quotes the value: %v", err)
			}
		})
	}
}

func manyNames(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"a%d":"",`, i)
	}
	return strings.TrimSuffix(b.String(), ",")
}

// FuzzDecode checks that no value makes decode panic, and that what it accepts
// is an entry like any other: written and read again, it is the same.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		aliceText, "", "null", "{}", `{"v":1}`, strings.Replace(aliceText, `"blue"`, `["\u0000\ud83d\ude00"]`, 1),
		strings.Replace(aliceText, `"v":3`, `"v":3e0`, 1), strings.Replace(aliceText, "true", "false", 1),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		entry, at, err := decode(value)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || entry != nil {
				t.Fatalf("error %v with entry %v", err, entry)
			}
			return
		}
		first, err := encode(entry, at)
		if err != nil {
			if len(value) > MaxEntrySize/6 {
				return // longer written out in our way
			}
			t.Fatalf("accepted but not written: %v", err)
		}
		again, atAgain, err := decode(first)
		if err != nil {
			t.Fatalf("written but not accepted: %v", err)
		}
		if !sameEntry(entry, again) || at != atAgain {
			t.Fatalf("%s became %s", value, first)
		}
		if second, _ := encode(again, at); !bytes.Equal(first, second) {
			t.Fatalf("%s and %s", first, second)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	entry := aliceEntry()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := encode(entry, testMark); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	value := []byte(aliceText)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := decode(value); err != nil {
			b.Fatal(err)
		}
	}
}

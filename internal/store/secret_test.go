package store

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	testSecret  = "correct horse battery staple"
	otherSecret = "another secret of some length"
)

func mustSealer(t testing.TB, secrets ...string) *sealer {
	t.Helper()
	s, err := newSealer(secrets)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The value that the documentation shows, and that other programs are tested
// with: the salt is 00 01 … 1f, the key kca:3:acme:m:n:i:u, the text {"v":3}.
const sealedText = `{"v":3,"key":"6163d52e466842c8","salt":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",` +
	`"data":"tM9OqyzJHTW/lVZbFqZse4ULNkr86dA="}`

func TestSealedEnvelopeReadsAsDocumented(t *testing.T) {
	salt := make([]byte, saltSize)
	for i := range salt {
		salt[i] = byte(i)
	}
	s := mustSealer(t, testSecret)
	value, err := s.sealWith("kca:3:acme:m:n:i:u", []byte(`{"v":3}`), salt)
	if err != nil {
		t.Fatal(err)
	}
	if string(value) != sealedText {
		t.Errorf("got %s, want %s", value, sealedText)
	}
	if plain, err := s.open("kca:3:acme:m:n:i:u", []byte(sealedText)); err != nil || string(plain) != `{"v":3}` {
		t.Errorf("opened: %s, %v", plain, err)
	}
}

func TestSealedEntriesAreSecretAndBound(t *testing.T) {
	s := mustSealer(t, testSecret)
	plain := mustEncode(t, aliceEntry())
	value, err := s.seal("k", plain)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := s.seal("k", plain)
	if bytes.Equal(value, again) {
		t.Error("equal entries look equal")
	}
	for _, part := range []string{"acme", "8d0c5a3e", "4711", "billing", testSecret} {
		if bytes.Contains(value, []byte(part)) {
			t.Errorf("it shows %s", part)
		}
	}
	if got, err := s.open("k", value); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("opened: %s, %v", got, err)
	}
	for i := range value { // each bit counts, or is not looked at
		changed := slices.Clone(value)
		changed[i] ^= 1
		if got, err := s.open("k", changed); err == nil && !bytes.Equal(got, plain) {
			t.Fatalf("with byte %d changed it is %s", i, got)
		}
	}
	tests := map[string]struct {
		key    string
		value  []byte
		sealer *sealer
	}{
		"CI-002 another key's value":           {"other", value, s},
		"CI-017 a plain entry":                 {"k", plain, s},
		"CI-019 a secret that is not used now": {"k", value, mustSealer(t, otherSecret)},
		"CI-006 half of it":                    {"k", value[:len(value)/2], s},
		"CI-007 nothing":                       {"k", nil, s},
		"CI-012 another version":               {"k", bytes.Replace(value, []byte(`"v":3`), []byte(`"v":2`), 1), s},
		"CI-013 a name twice":                  {"k", bytes.Replace(value, []byte(`"v":3`), []byte(`"v":3,"v":3`), 1), s},
		"CI-009 a huge value":                  {"k", append(slices.Clone(value), bytes.Repeat([]byte(" "), MaxEntrySize)...), s},
		"an entry sealed with nothing":         {"k", []byte(`{"v":3,"key":"` + s.first + `","salt":"","data":""}`), s},
		"a short salt":                         {"k", []byte(`{"v":3,"key":"` + s.first + `","salt":"AAAA","data":"AAAA"}`), s},
		"no data":                              {"k", []byte(`{"v":3,"key":"` + s.first + `","salt":"` + base64.StdEncoding.EncodeToString(make([]byte, saltSize)) + `"}`), s},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := test.sealer.open(test.key, test.value); !errors.Is(err, ErrInvalid) || got != nil {
				t.Errorf("opened: %s, %v", got, err)
			} else if strings.Contains(err.Error(), testSecret) || strings.Contains(err.Error(), "acme") {
				t.Errorf("it says %v", err)
			}
		})
	}
}

func TestSecretsAreLongEnough(t *testing.T) {
	for _, secrets := range [][]string{{""}, {"fifteen bytes.."}, {testSecret, "short"}} {
		if _, err := New(Config{URL: "redis://host", Secrets: secrets}); err == nil || strings.Contains(err.Error(), "fifteen") {
			t.Errorf("%d secrets: %v", len(secrets), err)
		}
	}
}

func TestEntryTooLargeWhenEncryptedIsNotStored(t *testing.T) {
	s := mustSealer(t, testSecret)
	if _, err := s.seal("k", make([]byte, MaxEntrySize*3/4)); !errors.Is(err, ErrInvalid) {
		t.Errorf("error is %v", err)
	}
	if _, err := s.seal("k", make([]byte, MaxEntrySize*3/4-512)); err != nil {
		t.Errorf("error is %v", err)
	}
}

func TestStoresWithSecrets(t *testing.T) {
	f, clock := newFakeRedis(t), newTestClock()
	with := func(secrets ...string) *Store {
		return newTestStore(t, Config{URL: f.url(), Now: clock.now, Timeout: time.Second, Secrets: secrets})
	}
	m, want := alice()
	get := func(s *Store) string {
		w := &witness{}
		entry, _, _ := s.Begin("k", want, w).Get(t.Context())
		if entry != nil && entry.Member.ID != m.ID {
			t.Errorf("got %v", entry)
		}
		_, there := f.get("k")
		return fmt.Sprint(w.lookups[0], " ", there)
	}
	old, rotating := with(testSecret), with(otherSecret, testSecret)
	expect := func(name, got, want string) {
		t.Run(name, func(t *testing.T) {
			if got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
	old.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
	if value, _ := f.get("k"); strings.Contains(value, "acme") {
		t.Errorf("the value is %s", value)
	}
	expect("the one that wrote it", get(with(testSecret)), "redis hit true")
	expect("CI-019 one with the old secret among others", get(rotating), "redis hit true")
	expect("CI-019 one without the old secret", get(with(otherSecret)), "redis invalid false")
	rotating.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
	expect("one with the new secret", get(with(otherSecret)), "redis hit true")
	expect("one without secrets", get(with()), "redis invalid false")
	with().Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
	expect("CI-017 a plain entry", get(with(otherSecret, testSecret)), "redis invalid false")
	f.set("k", aliceText)
	expect("CI-017 a forged entry of the right shape", get(with(testSecret)), "redis invalid false")

	other := with(testSecret)
	other.Begin("other", want, nil).Put(t.Context(), m, time.Minute, 0)
	swapped, _ := f.get("other")
	f.set("k", swapped)
	expect("CI-002 a swapped value", get(with(testSecret)), "redis invalid false")

	// Another program's flush needs no secret.
	reader := with(testSecret)
	reader.Begin("k", want, nil).Put(t.Context(), m, time.Minute, 0)
	f.appended("kind", "flush", "scope", "tenant", "tenant", "acme")
	caughtUp(t, f, reader)
	if _, result := reader.Memory("k", want); result == Hit {
		t.Error("the flush of another program does nothing")
	}
}

func BenchmarkSeal(b *testing.B) {
	s, plain := mustSealer(b, testSecret), mustEncode(b, aliceEntry())
	for b.Loop() {
		if _, err := s.seal("k", plain); err != nil {
			b.Fatal(err)
		}
	}
}

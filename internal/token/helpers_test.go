package token

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// published is an HTTP transport that answers every request with one key set.
type published struct {
	text  []byte
	asked atomic.Int64
}

func (p *published) RoundTrip(r *http.Request) (*http.Response, error) {
	p.asked.Add(1)
	return &http.Response{
		StatusCode: http.StatusOK,
		Body:       io.NopCloser(bytes.NewReader(p.text)),
		Request:    r,
	}, nil
}

// verifierOf returns a verifier for tokens of issuer, signed by keys in the text of
// a key set, at a time that stands still.
func verifierOf(t testing.TB, issuer string, keySet []byte, now time.Time, adapt ...func(*Config)) (*Verifier, *published) {
	t.Helper()
	transport := &published{text: keySet}
	clock := func() time.Time { return now }
	keys, err := NewKeySet(KeySetConfig{
		Issuer:  issuer,
		JWKSURL: issuer + "/certs",
		Client:  &http.Client{Transport: transport},
		Now:     clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(keys.Close)
	cfg := Config{Issuer: issuer, Keys: keys, Now: clock}
	for _, change := range adapt {
		change(&cfg)
	}
	v, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v, transport
}

func readFile(t testing.TB, elements ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, elements...)...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func decodeFile[T any](t testing.TB, elements ...string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(readFile(t, elements...), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

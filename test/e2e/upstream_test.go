package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// seen is what the application behind Caddy gets of a request.
type seen struct {
	Path    string
	Header  http.Header
	Trailer http.Header
}

// newUpstream starts an application that answers with what it has seen.
func newUpstream(t *testing.T) *httptest.Server {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// trailers arrive with the end of the body
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		data, err := json.Marshal(seen{Path: r.URL.Path, Header: r.Header, Trailer: r.Trailer})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(data) // a client that has gone wants no answer
	}))
	t.Cleanup(upstream.Close)
	return upstream
}

// answer is what a client gets from Caddy.
type answer struct {
	status int
	header http.Header
	body   string
	seen   *seen // by the application; nil if the request did not get there
}

// cache is the level of the cache that the member came from.
func (a answer) cache() string { return a.header.Get("X-Cache-Level") }

func (a answer) String() string {
	return fmt.Sprintf("status %d, header %v, body %q", a.status, a.header, a.body)
}

// change alters a request before it is sent.
type change func(*http.Request)

func bearer(token string) change { return header("Authorization", "Bearer "+token) }

func tenant(name string) change { return header("X-Tenant-ID", name) }

// header sets a header in exactly that spelling.
func header(name string, values ...string) change {
	return func(r *http.Request) { r.Header[name] = values }
}

// send sends a GET request for a path of the site.
func send(client *http.Client, url string, changes ...change) (answer, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	for _, change := range changes {
		change(req)
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: resp.StatusCode, header: resp.Header, body: string(body)}
	if resp.StatusCode == http.StatusOK {
		a.seen = new(seen)
		if err := json.Unmarshal(body, a.seen); err != nil {
			return a, fmt.Errorf("what the application saw: %w", err)
		}
	}
	return a, nil
}

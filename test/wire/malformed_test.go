package wire_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// raw sends a request as it is, and returns the answer's status, and its body
// as the fields that the upstream saw, if it was asked. A status of 0 is a
// connection that Caddy closed without an answer.
func (s *site) raw(tb testing.TB, head string) (int, []field) {
	tb.Helper()
	conn, err := dial(s.plain)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// Caddy may answer and close before it has read everything
	_, _ = io.WriteString(conn, head)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, nil
	}
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		tb.Fatal(err)
	}
	var seen []field
	_ = json.Unmarshal(body, &seen) // what is none comes from Caddy itself
	return response.StatusCode, seen
}

// What breaks HTTP, or is more of it than anybody takes, is refused, by Caddy's
// own server or by us, and the next request is served as ever.
func TestHeadersThatServersRefuse(t *testing.T) {
	s := startSite(t)
	request := func(authorization string) string {
		return "GET /member/h1 HTTP/1.1\r\nHost: site.example\r\nX-Tenant-ID: " + tenant + "\r\n" +
			"Authorization: Bearer " + authorization + "\r\n\r\n"
	}
	for name, head := range map[string]string{
		"HS-014 a token of 24 KB":         request(s.token + strings.Repeat("x", 24<<10)),
		"HS-017 a NUL in the value":       request(s.token + "\x00"),
		"HS-017 a folded line":            request(s.token + "\r\n folded"),
		"HS-017 a bare carriage return":   request(s.token + "\rX-User-ID: forged"),
		"HS-017 bytes that are not ASCII": request(s.token + "é"),
	} {
		t.Run(name, func(t *testing.T) {
			if status, seen := s.raw(t, head); admitted(seen) {
				t.Errorf("the request was let through, with status %d", status)
			}
			if status, seen := s.raw(t, request(s.token)); !admitted(seen) {
				t.Errorf("after it a good request gets status %d", status)
			}
		})
	}
}

// admitted tells whether what an upstream saw came by another way than the
// error route, which this site has as well.
func admitted(seen []field) bool {
	route := slices.IndexFunc(seen, func(f field) bool { return f.Name == "X-Route" })
	return route >= 0 && seen[route].Value != "error"
}

// The upstream sees one tenant, ours, whatever else the client calls so, and
// whatever it says about the connection.
func TestTheUpstreamSeesOneTenant(t *testing.T) {
	s := startSite(t)
	for name, lines := range map[string]string{
		"TN-005 aliases beside the good one":    "X_Tenant_ID: t2\r\nX.Tenant.ID: t2\r\n",
		"TN-019 called hop-by-hop":              "Connection: keep-alive, X-Tenant-ID, X-User-ID\r\n",
		"TN-019 called hop-by-hop, other words": "Connection: x-tenant-id\r\nProxy-Connection: X-User-ID\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			status, seen := s.raw(t, fmt.Sprintf("GET /member/h1 HTTP/1.1\r\nHost: site.example\r\nX-Tenant-ID: %s\r\n%s"+
				"Authorization: Bearer %s\r\n\r\n", tenant, lines, s.token))
			if !admitted(seen) {
				t.Fatalf("refused, with status %d", status)
			}
			var tenants, users []string
			for _, f := range seen {
				switch fold(f.Name) {
				case fold("X-Tenant-ID"):
					tenants = append(tenants, f.Value)
				case fold("X-User-ID"):
					users = append(users, f.Value)
				}
			}
			if !slices.Equal(tenants, []string{tenant}) || !slices.Equal(users, []string{s.user.ID}) {
				t.Errorf("the upstream sees tenants %q and users %q", tenants, users)
			}
		})
	}
}

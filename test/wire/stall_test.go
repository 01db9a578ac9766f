package wire_test

import (
	"bufio"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// A request that announces trailers ends with its body when it is refused. The
// client must not be able to hold up its own answer, and what serves it, by
// sending that body slowly or not at all.
func TestStallingClientGetsItsRefusal(t *testing.T) {
	s := startSite(t)
	for name, rest := range map[string]string{
		"a body that never comes":           "\r\n",
		"a body that begins and stalls":     "\r\n4\r\nab",
		"a body that waits to be asked for": "Expect: 100-continue\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := dial(s.plain)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			_, err = fmt.Fprintf(conn, "POST /member/h1 HTTP/1.1\r\nHost: site.example\r\n"+
				"Transfer-Encoding: chunked\r\nTrailer: %s\r\n%s", benignTrailer, rest)
			if err != nil {
				t.Fatal(err)
			}
			// whatever the error route of this site makes of it
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			defer func() { _ = response.Body.Close() }()
			if !response.Close { // what is left of the body would be taken for a request
				t.Error("the connection goes on")
			}
		})
	}
}

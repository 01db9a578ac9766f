// Command upstream is the application behind the measured Caddys: it answers every
// request with the identity that it was told. Below /auth it is the server that
// forward_auth asks, and lets everybody in. It ends when its standard input does, so
// that it does not outlive who started it.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "upstream: %v\n", err)
		os.Exit(1)
	}
}

// run serves until stdin ends. The first line of stdout is its address.
func run(stdin io.Reader, stdout io.Writer) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(serve), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		_ = server.Close()
	}()
	fmt.Fprintln(stdout, listener.Addr())
	if err := server.Serve(listener); err != http.ErrServerClosed { //nolint:errorlint // it is documented to come as it is
		return err
	}
	return nil
}

func serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/auth" {
		w.Header().Set("X-User-ID", "somebody")
		return
	}
	_, _ = io.WriteString(w, r.Header.Get("X-User-Id")+"|"+r.Header.Get("X-Tenant-Id")+"|"+r.Header.Get("X-Member-Id"))
}

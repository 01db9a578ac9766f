// Command upstream is the application behind the measured Caddys: it answers every
// request with the identity that it was told. Below /auth it is the server that
// forward_auth asks, and lets everybody in. On a second address it answers whatever
// comes with the same bytes: what the load generator gets from that is the most it can
// measure. It ends when its standard input does, so that it does not outlive who
// started it.
package main

import (
	"errors"
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

// run serves until stdin ends. The first line of stdout is the address of the
// application, the second one that of the socket.
func run(stdin io.Reader, stdout io.Writer) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go accept(socket)
	server := &http.Server{Handler: http.HandlerFunc(serve), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		_ = server.Close()
	}()
	fmt.Fprintf(stdout, "%s\n%s\n", listener.Addr(), socket.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
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

// accept answers on all connections until the process ends.
func accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go answer(conn)
	}
}

// answer answers each read: a client that waits for answers, and whose requests fit
// into one segment of loopback, sends one at a time.
func answer(conn net.Conn) {
	defer conn.Close()
	request, response := make([]byte, 16<<10), []byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
	for {
		if _, err := conn.Read(request); err != nil {
			return
		}
		if _, err := conn.Write(response); err != nil {
			return
		}
	}
}

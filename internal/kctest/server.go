// Package kctest is a stand-in for Keycloak, for tests and the demo: realms with
// discovery, key sets and a token endpoint, over HTTP on loopback, whose tokens are
// shaped like Keycloak's. Keys rotate, and endpoints misbehave, on demand.
//
// Times come from one clock per server, so that a test can move it. Nothing here is
// safe to expose: it hands out tokens for the asking.
package kctest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Server is one Keycloak with any number of realms.
type Server struct {
	addr string

	mu     sync.Mutex
	http   *http.Server // nil while stopped
	realms map[string]*Realm
	now    func() time.Time
}

// NewServer starts a server on a free port of 127.0.0.1.
func NewServer() (*Server, error) { return NewServerAt("127.0.0.1:0") }

// NewServerAt starts a server on addr, a host and port.
func NewServerAt(addr string) (*Server, error) {
	s := &Server{addr: addr, realms: make(map[string]*Realm), now: time.Now}
	if err := s.Start(); err != nil {
		return nil, err
	}
	return s, nil
}

// TB is what [Start] needs of a *testing.T. The testing package itself would bring
// its flags into programs that embed this one.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Start starts a server that ends with the test.
func Start(t TB) *Server {
	t.Helper()
	s, err := NewServer()
	if err != nil {
		t.Fatalf("starting the Keycloak stand-in: %v", err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Start listens again, on the same address, after [Server.Stop].
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		return errors.New("already started")
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", s.addr)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	s.addr = listener.Addr().String()
	server := &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second}
	s.http = server
	go func() { _ = server.Serve(listener) }() // returns when the server is closed
	return nil
}

// Stop refuses connections and cuts those there are. Realms and keys stay.
func (s *Server) Stop() {
	s.mu.Lock()
	server := s.http
	s.http = nil
	s.mu.Unlock()
	if server != nil {
		_ = server.Close()
	}
}

// URL is the server's base URL, without a slash at its end.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "http://" + s.addr
}

// SetClock makes now the source of time for all realms.
func (s *Server) SetClock(now func() time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

func (s *Server) clock() time.Time {
	s.mu.Lock()
	now := s.now
	s.mu.Unlock()
	return now()
}

// Realm returns the realm of that name, made if there is none yet. Like Keycloak's it
// has a signing key and one for encryption.
func (s *Server) Realm(name string) *Realm {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.realms[name]
	if !ok {
		r = newRealm(s, name)
		s.realms[name] = r
	}
	return r
}

// ServeHTTP answers for the realms that were made; others are not found.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rest, ok := strings.CutPrefix(r.URL.Path, "/realms/")
	name, path, _ := strings.Cut(rest, "/")
	s.mu.Lock()
	realm := s.realms[name]
	s.mu.Unlock()
	if !ok || realm == nil {
		answerNoRealm(w)
		return
	}
	realm.serve(w, r, path)
}

func answerNoRealm(w http.ResponseWriter) {
	writeJSON(w, http.StatusNotFound, map[string]any{"error": "Realm does not exist"})
}

package httpresolver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func TestTimeIsBounded_RS001(t *testing.T) {
	release := make(chan struct{})
	a := newApp(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	tests := map[string]func(t *testing.T) (*Resolver, context.Context){
		"by the resolver's time-out": func(t *testing.T) (*Resolver, context.Context) {
			return mustLoad(t, a.URL, `{"url":"URL/{tenant}/{kc_id}","timeout":"50ms"}`), t.Context()
		},
		"by that of the request": func(t *testing.T) (*Resolver, context.Context) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			t.Cleanup(cancel)
			return mustLoad(t, a.URL, path), ctx
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r, ctx := test(t)
			started, before := time.Now(), len(a.requests())
			_, err := r.Resolve(ctx, aliceAtAcme)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(started); took > time.Second {
				t.Errorf("took %s", took)
			}
			if n := len(a.requests()) - before; n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
		})
	}
}

// listener is an application that closes connections instead of answering.
type listener struct {
	net.Listener
	accepted chan struct{}
}

func TestOnlyFailedConnectionsAreTriedAgain_RS002(t *testing.T) {
	tests := map[string]struct {
		config string
		want   int // connections
	}{
		"a GET is sent once more": {path, 2},
		"a POST may have come":    {`{"url":"URL/m","method":"POST"}`, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			closing := listener{l, make(chan struct{}, 10)}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					conn, err := closing.Accept()
					if err != nil {
						return
					}
					closing.accepted <- struct{}{}
					_, _ = conn.Read(make([]byte, 4<<10))
					_ = conn.Close()
				}
			}()
			_, err = mustLoad(t, "http://"+l.Addr().String(), test.config).Resolve(t.Context(), aliceAtAcme)
			_ = l.Close()
			<-done
			if err == nil || errors.Is(err, member.ErrUnknown) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			if n := len(closing.accepted); n != test.want {
				t.Errorf("%d connections, want %d (%v)", n, test.want, err)
			}
		})
	}
}

func TestRefusedConnectionsAreTriedAgain(t *testing.T) {
	for name, config := range map[string]string{"GET": path, "POST": `{"url":"URL/m","method":"POST"}`} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, record(alice))
			r := mustLoad(t, a.URL, config)
			sent, do := 0, r.application.do
			r.application.do = func(req *http.Request) (*http.Response, error) {
				if sent++; sent == 1 {
					req.URL.Host = refusing(t)
				}
				return do(req)
			}
			if _, err := r.Resolve(t.Context(), aliceAtAcme); err != nil || sent != 2 {
				t.Errorf("sent %d times: %v", sent, err)
			}
		})
	}
	t.Run("but once", func(t *testing.T) {
		_, err := mustLoad(t, "http://"+refusing(t), path).Resolve(t.Context(), aliceAtAcme)
		checkError(t, err, "the connection failed", "connection refused")
		if errors.Is(err, member.ErrUnknown) {
			t.Errorf("got %v", err)
		}
	})
}

// Whatever else went wrong would go wrong again.
func TestOtherFailuresAreNotTriedAgain(t *testing.T) {
	garbage, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = garbage.Close() })
	go func() {
		for {
			conn, err := garbage.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4<<10))
			_, _ = io.WriteString(conn, "s3cret, and no HTTP\r\n\r\n")
			_ = conn.Close()
		}
	}()
	unknown := httptest.NewTLSServer(record(alice))
	t.Cleanup(unknown.Close)
	for name, test := range map[string]struct{ url, want string }{
		"an unknown authority": {unknown.URL, "certificate"},
		"no HTTP":              {"http://" + garbage.Addr().String(), "no answer that HTTP allows"},
	} {
		t.Run(name, func(t *testing.T) {
			r := mustLoad(t, test.url, path)
			sent, do := 0, r.application.do
			r.application.do = func(req *http.Request) (*http.Response, error) {
				sent++
				return do(req)
			}
			_, err := r.Resolve(t.Context(), aliceAtAcme)
			checkError(t, err, test.want)
			if sent != 1 || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("sent %d times: %v", sent, err)
			}
		})
	}
}

// refusing returns an address that nothing listens on.
func refusing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestMutualTLSAndPrivateAuthorities(t *testing.T) {
	a := new(app)
	a.Server = httptest.NewUnstartedServer(a.record(record(alice)))
	pki := newPKI(t)
	a.TLS = pki.serverConfig()
	a.StartTLS()
	t.Cleanup(a.Close)
	trust, err := json.Marshal(map[string]any{"provider": "file", "pem_files": []string{pki.authorityFile}})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ config, want string }{
		"both":                     {`{"url":"URL/{tenant}/{kc_id}","trust_pool":` + string(trust) + `,"client_certificate_file":"` + pki.certificateFile + `","client_key_file":"` + pki.keyFile + `"}`, ""},
		"no client certificate":    {`{"url":"URL/{tenant}/{kc_id}","trust_pool":` + string(trust) + `}`, "asking the application"},
		"the system's authorities": {`{"url":"URL/{tenant}/{kc_id}","client_certificate_file":"` + pki.certificateFile + `","client_key_file":"` + pki.keyFile + `"}`, "certificate"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := mustLoad(t, a.URL, test.config).Resolve(t.Context(), aliceAtAcme)
			if test.want == "" && err != nil {
				t.Error(err)
			}
			if test.want != "" {
				checkError(t, err, test.want)
			}
		})
	}
}

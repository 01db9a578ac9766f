// Package remote is how resolvers reach servers over HTTP: with what certificates,
// within what bounds, and without errors that quote what a server sent.
package remote

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/internal/options"
)

const (
	// maxConns bounds the connections to one server. Calls beyond wait for one,
	// within their own time.
	maxConns = 64

	dialTimeout = 5 * time.Second
	idleTimeout = time.Minute
)

// Way is how a server is reached: what makes one set of connections different from
// another. As JSON it is fit for the key of a pool, and holds a secret.
type Way struct {
	TrustPool        json.RawMessage
	Authorities      [][]byte
	Certificate, Key []byte

	tls *tls.Config
}

// NewWay reads the certificates. authority is the loaded module of the setting
// `trust_pool`, whose text is trustPool; nil stands for the system's authorities.
// The files, whose names may hold global placeholders, are the client's certificate
// and key; both or none.
func NewWay(trustPool json.RawMessage, authority any, certificateFile, keyFile string) (Way, error) {
	w := Way{TrustPool: trustPool, tls: &tls.Config{MinVersion: tls.VersionTLS12}}
	if authority != nil {
		ca, ok := authority.(caddytls.CA)
		if !ok {
			return Way{}, fmt.Errorf("trust_pool: %T is no source of certificate authorities", authority)
		}
		w.tls.RootCAs = ca.CertPool()
		// a changed file under the same name makes new connections
		if provider, ok := authority.(caddytls.CertificateProvider); ok {
			for _, certificate := range provider.Certificates() {
				w.Authorities = append(w.Authorities, certificate.Raw)
			}
		}
	}
	if (certificateFile == "") != (keyFile == "") {
		return Way{}, errors.New("client_certificate: give two files, the certificate's and its key's")
	}
	if certificateFile != "" {
		if err := w.readCertificate(certificateFile, keyFile); err != nil {
			return Way{}, fmt.Errorf("client_certificate: %w", err)
		}
	}
	return w, nil
}

func (w *Way) readCertificate(certificateFile, keyFile string) error {
	for _, file := range []struct {
		name string
		data *[]byte
	}{{certificateFile, &w.Certificate}, {keyFile, &w.Key}} {
		name, err := options.Expand(file.name)
		if err != nil {
			return err
		}
		if *file.data, err = os.ReadFile(name); err != nil {
			return err
		}
	}
	pair, err := tls.X509KeyPair(w.Certificate, w.Key)
	if err != nil {
		return err
	}
	w.tls.Certificates = []tls.Certificate{pair}
	return nil
}

// Client is a pooled set of connections.
type Client struct {
	http      *http.Client
	transport *http.Transport
}

// Client returns a client that keeps no cookies, follows no redirects and asks for
// no compression.
func (w Way) Client() *Client {
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:        w.tls,
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // or a small answer could be a large one
		MaxConnsPerHost:        maxConns,
		MaxIdleConnsPerHost:    maxConns / 4,
		MaxResponseHeaderBytes: 64 << 10,
		IdleConnTimeout:        idleTimeout,
	}
	refuse := func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // what proves who asks goes nowhere else
	}
	return &Client{&http.Client{Transport: transport, CheckRedirect: refuse}, transport}
}

// Do sends a request. Its error quotes neither the address nor what came back.
func (c *Client) Do(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req) //nolint:gosec // the configuration says where; what requests say is encoded in it
	if err != nil {
		return nil, safe(err)
	}
	return resp, nil
}

// Close closes the idle connections. Requests of a configuration that is being
// replaced may still be sent.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// CheckURL tells why nothing should be asked at a URL. It does not repeat the URL,
// which may hold a secret.
func CheckURL(u *url.URL, insecureHTTP bool) error {
	switch {
	case u.Host == "" || u.Opaque != "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("not an absolute https:// URL")
	case u.User != nil:
		return errors.New("the URL holds a user name or password; leave them out")
	case u.Fragment != "":
		return errors.New("the URL has a fragment; leave it out")
	case u.Scheme == "http" && !insecureHTTP && !isLoopback(u.Hostname()):
		return errors.New("http:// is only accepted for loopback addresses; use https://, or add insecure_http if the network is trusted")
	}
	return nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// errNoAnswer also is [context.DeadlineExceeded].
var errNoAnswer error = noAnswerError{}

type noAnswerError struct{}

func (noAnswerError) Error() string { return "no answer in time" }
func (noAnswerError) Unwrap() error { return context.DeadlineExceeded }

// Package remote is how resolvers reach servers over HTTP: with what certificates,
// within what bounds, and without errors that quote what a server sent.
package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/origin"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/tlsidentity"
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
	Identity tlsidentity.Identity
}

// NewWay reads the certificates: those of the setting `trust_pool`, which is in the
// owner's field TrustPoolRaw, and the client's, from files whose names may hold global
// placeholders.
func NewWay(ctx caddy.Context, owner any, trustPool json.RawMessage, certificateFile, keyFile string) (Way, error) {
	for _, name := range []*string{&certificateFile, &keyFile} {
		expanded, err := options.Expand(*name)
		if err != nil {
			return Way{}, fmt.Errorf("client_certificate: %w", err)
		}
		*name = expanded
	}
	identity, err := tlsidentity.New(ctx, owner, trustPool, certificateFile, keyFile)
	return Way{identity}, err
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
		TLSClientConfig:        w.Identity.Config(),
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
	case u.Scheme == "http" && !insecureHTTP && !origin.IsLoopback(u):
		return errors.New("http:// is only accepted for loopback addresses; use https://, or add insecure_http if the network is trusted")
	}
	return nil
}

// errNoAnswer also is [context.DeadlineExceeded].
var errNoAnswer error = noAnswerError{}

type noAnswerError struct{}

func (noAnswerError) Error() string { return "no answer in time" }
func (noAnswerError) Unwrap() error { return context.DeadlineExceeded }

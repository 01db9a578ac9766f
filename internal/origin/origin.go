// Package origin reads the URLs of servers and tells whether two name the same one:
// what an issuer may lead its callers to.
package origin

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// Parse reads the URL of a server, which its operator configured or another server
// named. The error does not quote it: it may hold a secret.
func Parse(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("not a URL") // err quotes it
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("not an https or http URL")
	case u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("a URL without host")
	case u.User != nil:
		return nil, errors.New("a URL with user or password")
	case u.Fragment != "":
		return nil, errors.New("a URL with a fragment")
	}
	return u, nil
}

// Same reports whether both have one scheme, host and port (RFC 6454 §5).
func Same(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(hostPort(a), hostPort(b))
}

// IsLoopback tells whether the server is on this very machine, so that nobody else
// reads along.
func IsLoopback(u *url.URL) bool {
	host := u.Hostname()
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

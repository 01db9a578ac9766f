package introspect

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

func parseURL(text string) (*url.URL, error) {
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

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(hostPort(a), hostPort(b))
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// shorten makes a stranger's text fit for an error.
func shorten(text string) string {
	const most = 200
	if len(text) > most {
		return strconv.QuoteToASCII(text[:most]) + "…"
	}
	return strconv.QuoteToASCII(text)
}

// withoutQuotes returns what went wrong between here and the server, without the
// address, which for a redirect is a stranger's text, and without what net/http
// quotes of an answer that is not HTTP.
func withoutQuotes(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	var (
		network     *net.OpError
		name        *net.DNSError
		certificate *tls.CertificateVerificationError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errNoAnswer
	case errors.Is(err, errOtherOrigin), errors.Is(err, context.Canceled), errors.Is(err, http.ErrSchemeMismatch),
		errors.As(err, &network), errors.As(err, &name), errors.As(err, &certificate):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection was closed before the end of the answer")
	}
	return errors.New("no answer that HTTP allows")
}

var errNoAnswer = fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)

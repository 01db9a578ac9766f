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
)

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

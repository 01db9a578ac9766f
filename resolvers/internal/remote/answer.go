package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// ErrConnection says that the connection could not be made, or broke before the
// answer began: asking again may succeed.
var ErrConnection = errors.New("the connection failed")

// safe returns what went wrong between here and the server, without the address,
// and without what net/http quotes of an answer that is not HTTP.
func safe(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	var (
		network     *net.OpError
		name        *net.DNSError
		certificate *tls.CertificateVerificationError
		refused     tls.AlertError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errNoAnswer
	case errors.Is(err, context.Canceled), errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &certificate):
		return err
	case errors.As(err, &refused):
		return fmt.Errorf("the server refuses the connection: %w", err) // no client certificate, say
	case errors.As(err, &network), errors.As(err, &name):
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			return errNoAnswer
		}
		return fmt.Errorf("%w: %w", ErrConnection, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it was closed before the end of the answer", ErrConnection)
	}
	return errors.New("no answer that HTTP allows")
}

// ReadBody returns the body of an answer, of at most so many bytes.
func ReadBody(resp *http.Response, most int64) ([]byte, error) {
	if encoding := resp.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return nil, errors.New("the answer is compressed, which was not asked for; switch that off at the server")
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the answer: %w", safe(err))
	case int64(len(text)) > most:
		return nil, fmt.Errorf("the answer has more than %d bytes", most)
	}
	return text, nil
}

// IsJSON tells whether an answer says that it is JSON.
func IsJSON(resp *http.Response) bool {
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return err == nil && (media == "application/json" || strings.HasSuffix(media, "+json"))
}

// Drain reads the rest of a short answer, so that its connection can be used again
// once the body is closed.
func Drain(resp *http.Response) {
	const short = 4 << 10
	_, _ = io.CopyN(io.Discard, resp.Body, short) // the connection is closed if that fails
}

// Decode reads one JSON value into to, by exact names, and refuses names given
// twice, invalid UTF-8 and whatever follows. Its error quotes nothing.
func Decode(text []byte, to any) error {
	if err := json.Unmarshal(text, to, jsontext.AllowDuplicateNames(false)); err != nil {
		return errors.New("the answer is not JSON of the expected form")
	}
	return nil
}

// ReadObject reads one JSON object. Names repeated at any depth, names of the object
// that differ in letter case only, and invalid UTF-8 are errors: of such, others
// might read what was not meant.
func ReadObject(text []byte) (map[string]jsontext.Value, error) {
	var members map[string]jsontext.Value
	if err := Decode(text, &members); err != nil || members == nil {
		return nil, errors.New("the answer is not one JSON object with unambiguous names")
	}
	folded := make(map[string]bool, len(members))
	for name := range members {
		if folded[fold(name)] {
			return nil, errors.New("the answer has two names that differ in letter case only")
		}
		folded[fold(name)] = true
	}
	return members, nil
}

// fold maps all names that are equal under Unicode simple folding to one: to the
// least rune of each orbit, so S for s, S and ſ.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, name)
}

// SameName tells whether two names differ in letter case at most.
func SameName(a, b string) bool { return fold(a) == fold(b) }

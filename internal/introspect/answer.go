package introspect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	// maxAnswer is far more than an access token may have: Keycloak repeats the
	// token's claims, and for some clients the whole token, in the answer.
	maxAnswer = 256 << 10
	// maxError is how much of a refusal is read, for its code.
	maxError = 4 << 10
)

// readAnswer returns the body of an answer that says "active": true. What it says of
// other answers quotes nothing of them.
func readAnswer(resp *http.Response) ([]byte, error) {
	if resp.StatusCode != http.StatusOK {
		return nil, refusal(resp)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, unavailable(fmt.Errorf("reading the answer: %w", withoutQuotes(err)))
	case len(text) > maxAnswer:
		return nil, maybeByToken(fmt.Sprintf("the answer has more than %d bytes", maxAnswer))
	}
	active, err := readActive(text)
	switch {
	case err != nil:
		return nil, maybeByToken(err.Error())
	case !active:
		return nil, ErrInactive
	}
	return text, nil
}

// refusal says what an answer other than 200 means. A token may lead a server into
// 400 (or 414 and the like) and 500, but not into not knowing the client.
func refusal(resp *http.Response) error {
	status := resp.StatusCode
	switch {
	case status == http.StatusUnauthorized,
		status == http.StatusBadRequest && blamesClient(resp.Body): // so Keycloak for assertions
		return unavailable(fmt.Errorf("client authentication failed (status %d): check client id and secret or key, "+
			"and the client's authenticator at the issuer; for a key also this server's clock", status))
	case status == http.StatusForbidden:
		return unavailable(errors.New("the client may not introspect (status 403): it has to be a confidential client"))
	case status == http.StatusNotFound:
		return unavailable(errors.New("there is no endpoint (status 404): check the realm's name and the endpoint"))
	case 300 <= status && status <= 399:
		return unavailable(fmt.Errorf("redirected (status %d), which is not followed: configure the endpoint", status))
	case status == http.StatusTooManyRequests, status > http.StatusInternalServerError:
		return unavailable(fmt.Errorf("status %d", status))
	}
	return maybeByToken(fmt.Sprintf("status %d", status))
}

// blamesClient reports whether a refusal is about who asks (RFC 6749 §5.2).
func blamesClient(body io.Reader) bool {
	text, err := io.ReadAll(io.LimitReader(body, maxError))
	if err != nil {
		return false
	}
	members, err := readObject(text)
	if err != nil {
		return false
	}
	switch string(members["error"]) {
	case `"invalid_client"`, `"unauthorized_client"`:
		return true
	}
	return false
}

// readActive returns the answer's verdict (RFC 7662 §2.2).
func readActive(text []byte) (bool, error) {
	members, err := readObject(text)
	if err != nil {
		return false, err
	}
	switch string(members["active"]) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	case "":
		return false, errors.New("the answer does not say whether the token is active")
	}
	return false, errors.New("the answer's active is not a boolean")
}

// readObject reads one JSON object. Invalid UTF-8, names repeated at any depth, and
// names of the object that differ in letter case only, are errors: of such, others
// might read what was not meant.
func readObject(text []byte) (map[string]jsontext.Value, error) {
	errNot := errors.New("the answer is not one JSON object with unambiguous names")
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte{'{'}) {
		return nil, errNot
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(text))
	if _, err := dec.ReadToken(); err != nil {
		return nil, errNot // err may quote the text, here and below
	}
	members := make(map[string]jsontext.Value)
	folded := make(map[string]bool)
	for dec.PeekKind() != '}' {
		token, err := dec.ReadToken()
		if err != nil {
			return nil, errNot
		}
		name := token.String()
		if folded[fold(name)] {
			return nil, errNot
		}
		folded[fold(name)] = true
		value, err := dec.ReadValue()
		if err != nil {
			return nil, errNot
		}
		members[name] = value.Clone()
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, errNot
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errNot
	}
	return members, nil
}

// fold maps all names that are equal under Unicode simple folding to one: to the
// least rune of each orbit, so S for s, S and ſ.
func fold(name string) string {
	folded := make([]rune, 0, len(name))
	for _, r := range name {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		folded = append(folded, least)
	}
	return string(folded)
}

package keycloakcacheauth

import (
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

// ownedHeaders are the header names that only this module may send to what
// comes after it.
type ownedHeaders struct {
	names map[string]struct{} // in the spelling of [fold]

	// Which lengths and first characters the names have, in that spelling: most
	// of what clients send differs there, and need not be looked up.
	lengths [maxQuickLength + 1]bool
	first   charSet
}

// maxQuickLength is the longest name that can be told from all others by its
// length. Longer ones are looked up.
const maxQuickLength = 63

// defaultOwned are owned whatever is configured: an upstream that was written
// for the default names must never see a client's.
var defaultOwned = []string{
	headerUserID, headerUserName, headerUserEmail, headerUserRoles,
	headerTenantID, headerMemberID, headerAuthStatus, headerAssertion,
}

func newOwnedHeaders(names ...string) *ownedHeaders {
	owned := &ownedHeaders{names: make(map[string]struct{}, len(defaultOwned)+len(names))}
	for _, name := range append(names, defaultOwned...) {
		folded := string(fold(nil, name))
		owned.names[folded] = struct{}{}
		owned.first[folded[0]] = true
		owned.lengths[min(len(folded), maxQuickLength)] = true
	}
	owned.lengths[maxQuickLength] = true
	return owned
}

// fold brings all spellings that some upstream takes for the same header to
// one: CGI, FastCGI and WSGI turn every character that is not a letter or a
// digit into an underscore, and do not look at case.
func fold(dst []byte, name string) []byte {
	for i := range len(name) {
		dst = append(dst, foldedChar(name[i]))
	}
	return dst
}

func foldedChar(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case !isAlphanumeric(c):
		return '-'
	}
	return c
}

// has tells whether name is an owned header in any spelling.
func (o *ownedHeaders) has(name string) bool {
	if name == "" || !o.lengths[min(len(name), maxQuickLength)] || !o.first[foldedChar(name[0])] {
		return false
	}
	var buf [64]byte // longer names are allocated for; none of the defaults is
	_, owned := o.names[string(fold(buf[:0], name))]
	return owned
}

// strip deletes every owned header from the request: from its fields, from its
// trailers and from the tokens of Connection, with which a client could make
// the proxy behind us remove the fields that we are about to set (RFC 9110
// section 7.6.1). Caddy does part of this in some versions; identity does not
// depend on which.
//
// Whoever ends the request with an error passes that through
// [trailerFilter.abandonOn] of what is returned, which may be nil.
func (o *ownedHeaders) strip(r *http.Request) *trailerFilter {
	for name := range r.Header {
		if o.has(name) {
			delete(r.Header, name)
		}
	}
	if fields := r.Header["Connection"]; len(fields) > 0 {
		o.stripConnection(r.Header, fields)
	}
	return o.stripTrailer(r)
}

// stripConnection removes owned names from the Connection fields and leaves
// everything else, such as an Upgrade, as it is.
func (o *ownedHeaders) stripConnection(header http.Header, fields []string) {
	var kept []string
	found := false
	for _, field := range fields {
		for token := range strings.SplitSeq(field, ",") {
			token = strings.TrimSpace(token)
			if o.has(token) {
				found = true
			} else if token != "" {
				kept = append(kept, token)
			}
		}
	}
	switch {
	case !found:
	case len(kept) == 0:
		delete(header, "Connection")
	default:
		header["Connection"] = []string{strings.Join(kept, ", ")}
	}
}

// stripTrailer replaces the request's trailer map, which net/http fills when
// the body has been read, by one that only gets what is not owned. It returns
// what does so, nil for a request that announces no trailer: that one has none
// for whoever comes next.
//
// Deleting the announced names alone would not do: once any trailer is
// announced, net/http merges all of HTTP/1.1's that arrive into the map,
// announced or not.
func (o *ownedHeaders) stripTrailer(r *http.Request) *trailerFilter {
	if r.Trailer == nil {
		return nil
	}
	filter := &trailerFilter{
		ReadCloser: r.Body,
		owned:      o,
		arriving:   r.Trailer,
		allowed:    make(http.Header, len(r.Trailer)),
		// in HTTP/2 only what is still in the map when the body ends is filled in
		merged: r.ProtoMajor != 2,
	}
	filter.deleteOwned()
	maps.Copy(filter.allowed, filter.arriving)
	r.Trailer = filter.allowed
	if r.Body != nil {
		r.Body = filter
	}
	return filter
}

// trailerFilter is a body that copies the trailers that are not owned when it
// ends, which is when their values are known.
type trailerFilter struct {
	io.ReadCloser
	owned   *ownedHeaders
	allowed http.Header
	merged  bool // whether trailers may arrive that are not in the map yet

	mu       sync.Mutex // a transport may still read when its request has failed
	arriving http.Header
}

func (t *trailerFilter) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		for name, values := range t.arriving {
			if !t.owned.has(name) {
				t.allowed[name] = values
			}
		}
	}
	return n, err
}

func (t *trailerFilter) deleteOwned() {
	for name := range t.arriving {
		if t.owned.has(name) {
			delete(t.arriving, name)
		}
	}
}

// abandonOn returns err. If there is one, error routes come next, and what they
// get may be another copy of the request than the one that has been stripped:
// handlers such as forward_auth and tracing hand on a copy. It shares the
// fields with ours, but has the map of all trailers, and the body that fills
// it. Nothing can come between these two in HTTP/1.1, so there such a body ends
// here, and with it the connection: what reads on gets an error. That concerns
// requests that announce trailers only. In HTTP/2 only announced trailers
// arrive, of which ours are out of the map already.
func (t *trailerFilter) abandonOn(w http.ResponseWriter, err error) error {
	if err == nil || t == nil || !t.merged {
		return err
	}
	if t.ReadCloser != nil {
		// Close reads on for a while, for the sake of the next request on the
		// connection. The client must not be able to hold up its own answer
		// with that, so nothing more is read.
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) // where it is not supported, Close may take its time
		w.Header().Set("Connection", "close")
		_ = t.ReadCloser.Close()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deleteOwned()
	return err
}

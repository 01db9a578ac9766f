package keycloakcacheauth

import (
	"io"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// passOn hands the request on. Where something is to be done with the answer's
// header, it is watched; who is the user's Keycloak id, also of one who would
// have been refused.
func (h *Handler) passOn(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, id *identity, who string) error {
	status := h.CacheStatus != "" && id.outcome == outcomeMember
	if !status && h.compare == nil {
		return next.ServeHTTP(w, r)
	}
	watched := &answerWatch{ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}}
	if h.compare != nil {
		watched.do(h.compare.begin(id, who))
	}
	if status {
		watched.do(h.cacheStatusOf(id))
	}
	err := next.ServeHTTP(watched, r)
	watched.end(err)
	return err
}

// onAnswer is called once, with the final status and header of an answer right
// before they are sent; with 0 and nil if there is no answer.
type onAnswer func(status int, header http.Header)

// answerWatch is a response writer that calls what waits for the answer's
// header. All else goes to the writer below untouched: informational responses
// (RFC 9110 section 15.2), bodies, trailers and, by Unwrap, hijacking and
// deadlines.
type answerWatch struct {
	*caddyhttp.ResponseWriterWrapper
	waiting []onAnswer // nil once they have been called
}

func (a *answerWatch) do(f onAnswer) { a.waiting = append(a.waiting, f) }

func (a *answerWatch) answered(status int, header http.Header) {
	waiting := a.waiting
	a.waiting = nil
	for _, call := range waiting {
		call(status, header)
	}
}

// end is called when the next handler has returned: one that has written
// nothing has answered with 200, or with an error that is answered elsewhere.
func (a *answerWatch) end(err error) {
	if err != nil {
		a.answered(0, nil)
		return
	}
	a.answered(statusImplicit, a.Header())
}

// WriteHeader implements [http.ResponseWriter].
func (a *answerWatch) WriteHeader(status int) {
	if isFinal(status) {
		a.answered(status, a.Header())
	}
	a.ResponseWriterWrapper.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (a *answerWatch) Write(p []byte) (int, error) {
	a.answered(statusImplicit, a.Header())
	return a.ResponseWriterWrapper.Write(p)
}

// ReadFrom implements [io.ReaderFrom], so that files can still be sent by the
// kernel.
func (a *answerWatch) ReadFrom(r io.Reader) (int64, error) {
	a.answered(statusImplicit, a.Header())
	return a.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError is what [http.ResponseController] calls: a flush sends the header,
// too.
func (a *answerWatch) FlushError() error {
	a.answered(statusImplicit, a.Header())
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Flush implements [http.Flusher], for those who ask for that.
func (a *answerWatch) Flush() { _ = a.FlushError() }

// Interface guards
var (
	_ io.ReaderFrom = (*answerWatch)(nil)
	_ http.Flusher  = (*answerWatch)(nil)
	_ http.Pusher   = (*answerWatch)(nil)
)

package kctest

import (
	"net/http"
	"strings"
	"time"
)

// Fault answers in place of an endpoint, whose own answer it may still give.
type Fault func(w http.ResponseWriter, r *http.Request, answer http.HandlerFunc)

// Hangup closes the connection without an answer.
func Hangup() Fault {
	return func(http.ResponseWriter, *http.Request, http.HandlerFunc) { panic(http.ErrAbortHandler) }
}

// Hang never answers; it ends when the client gives up.
func Hang() Fault {
	return func(_ http.ResponseWriter, r *http.Request, _ http.HandlerFunc) { <-r.Context().Done() }
}

// Slow answers after d.
func Slow(d time.Duration) Fault {
	return func(w http.ResponseWriter, r *http.Request, answer http.HandlerFunc) {
		patience := time.NewTimer(d)
		defer patience.Stop()
		select {
		case <-patience.C:
			answer(w, r)
		case <-r.Context().Done():
		}
	}
}

// Gate answers once open is closed.
func Gate(open <-chan struct{}) Fault {
	return func(w http.ResponseWriter, r *http.Request, answer http.HandlerFunc) {
		select {
		case <-open:
			answer(w, r)
		case <-r.Context().Done():
		}
	}
}

// Status answers with that status and a page for people.
func Status(code int) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		http.Error(w, "<html><body>We are sorry</body></html>", code)
	}
}

// Body answers 200 with that text, whatever it is: garbage, {} or an empty key set.
func Body(text string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(text))
	}
}

// Oversized answers 200 with that many bytes of JSON whitespace and then nothing.
func Oversized(size int) Fault { return Body(strings.Repeat(" ", size)) }

// Redirect leads to another address.
func Redirect(to string) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		http.Redirect(w, r, to, http.StatusFound)
	}
}

// NoRealm answers as Keycloak does for a realm that it does not have, or not any more.
func NoRealm() Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { answerNoRealm(w) }
}

package keycloakcacheauth

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// DPoP says what becomes of tokens that are bound to a key of their client,
// which then has to prove with each request that it holds that key (RFC 9449).
type DPoP struct {
	// `off` (the default) refuses such tokens. `accepted` verifies them with
	// their proofs, and takes plain bearer tokens as well. `required` takes no
	// other.
	Mode string `json:"mode,omitempty"`

	// The origins under which clients know this site, such as
	// `https://app.example.com`: a proof must be for the request's path at one
	// of them. Set it where something in front of Caddy ends TLS or changes the
	// host, and on sites that answer to any host: otherwise whoever got a proof
	// that was made for another site could use it here. Default: the origin of
	// `resource`, if that is set, else the request's own: `https` if it came over
	// TLS, and its `Host`.
	Origins []string `json:"origins,omitempty"`

	// How old a proof may be. At most 10m. Default: 60s.
	MaxAge caddy.Duration `json:"max_age,omitempty"`

	// Demands that proofs hold a nonce that this server gave (RFC 9449 section
	// 9), so that none can be made ahead of time.
	Nonce bool `json:"nonce,omitempty"`

	// What nonces are made with: at least 32 random bytes, such as
	// `{env.DPOP_SECRET}`. Nodes that share it accept each other's nonces.
	// Required with a store that nodes share; otherwise chosen anew when the
	// configuration is loaded, so that clients are told once to try again.
	NonceSecret string `json:"nonce_secret,omitempty"`
}

// Modes of DPoP, and bounds.
const (
	dpopOff      = "off"
	dpopAccepted = "accepted"
	dpopRequired = "required"

	defaultProofAge = time.Minute
	maxProofAge     = 10 * time.Minute

	// maxProofSize is the longest proof in bytes: its key is in it.
	maxProofSize = 8 << 10

	minNonceSecret = 32
)

// proofHeader is the header of proofs, in canonical form.
const proofHeader = "Dpop"

// isOn tells whether bound tokens are verified at all.
func (d *DPoP) isOn() bool { return d != nil && d.Mode != "" && d.Mode != dpopOff }

// check tells what is wrong with the settings as far as can be before their
// placeholders are expanded.
func (d *DPoP) check() error {
	if d == nil {
		return nil
	}
	switch d.Mode {
	case "", dpopOff, dpopAccepted, dpopRequired:
	default:
		return fmt.Errorf("dpop: %q is none of %s, %s and %s", d.Mode, dpopOff, dpopAccepted, dpopRequired)
	}
	switch {
	case !d.isOn() && (len(d.Origins) > 0 || d.MaxAge != 0 || d.Nonce):
		return errors.New("dpop: off verifies no proofs, so it takes no settings; remove them, or say accepted or required")
	case d.MaxAge < 0 || time.Duration(d.MaxAge) > maxProofAge:
		return fmt.Errorf("dpop: max_age %s is negative or more than %s", time.Duration(d.MaxAge), maxProofAge)
	case d.NonceSecret != "" && !d.Nonce:
		return errors.New("dpop: nonce_secret goes with nonce; add that, or remove the secret")
	case d.NonceSecret != "" && !hasPlaceholder(d.NonceSecret) && len(d.NonceSecret) < minNonceSecret:
		return fmt.Errorf("dpop: the nonce's secret is shorter than %d bytes; make one with `openssl rand -base64 32`", minNonceSecret)
	}
	if err := checkGlobalPlaceholders(d.NonceSecret); err != nil {
		return fmt.Errorf("dpop: nonce: %w", err)
	}
	for _, origin := range d.Origins {
		if err := checkGlobalPlaceholders(origin); err != nil {
			return fmt.Errorf("dpop: origin: %w", err)
		}
		if hasPlaceholder(origin) {
			continue
		}
		if err := checkOrigin(origin); err != nil {
			return fmt.Errorf("dpop: origin: %w", err)
		}
	}
	return nil
}

func checkOrigin(origin string) error {
	if err := checkURL(origin, true); err != nil {
		return err
	}
	if u, _ := url.Parse(origin); u.Path != "" || strings.HasSuffix(origin, "/") {
		return errors.New("an origin has no path; give scheme, host and, if need be, port, such as https://app.example.com")
	}
	return nil
}

// provenRequest returns what a proof for the request has to name: the method
// and the URL, which may be one of several. They are those that the client
// used, whatever was rewritten since.
func provenRequest(origins []string, r *http.Request) (method string, urls []string) {
	method, path := r.Method, pathAsItCame(r)
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		method, path = original.Method, pathAsItCame(&original)
	}
	if path == "" {
		return method, nil
	}
	if len(origins) == 0 {
		scheme := "http"
		if r.TLS != nil {
			scheme = "https"
		}
		return method, []string{scheme + "://" + r.Host + path}
	}
	for _, origin := range origins {
		urls = append(urls, origin+path)
	}
	return method, urls
}

// pathAsItCame returns the escaped path of the request line, "" for one that no
// proof is for. EscapedPath alone escapes anew what it finds wrongly escaped,
// and then takes %2F for a slash.
func pathAsItCame(r *http.Request) string {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	switch {
	case strings.Contains(path, "#"): // part of the path to Go, the end of it to URLs
		return ""
	case strings.HasPrefix(path, "/"):
		return path
	}
	if r.URL.RawPath != "" && r.URL.RawPath != r.URL.EscapedPath() {
		return "" // that no proof is for
	}
	return r.URL.EscapedPath()
}

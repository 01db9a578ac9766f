package token

import (
	"net/http"
	"time"
)

// KeySetConfig says whose keys a [KeySet] holds and how it gets them.
type KeySetConfig struct {
	// Issuer is the realm's URL, as in tokens. Required.
	Issuer string

	// JWKSURL is where the keys are. Default: what discovery says, which has to
	// be of the origin asked.
	JWKSURL string

	// BackchannelURL is the realm's URL as this server reaches it. Discovery asks
	// there; the document's issuer must still be Issuer, and the keys are fetched
	// from BackchannelURL's scheme and host. Default: Issuer.
	BackchannelURL string

	// Confined keeps redirects, and what discovery says, below the path of the
	// realm's own URL (Issuer or BackchannelURL), or at JWKSURL's; otherwise only
	// the origin has to be the same. Realms of a template are always confined.
	Confined bool

	// Client makes the requests. Its redirect policy and cookie jar are not used.
	// Default: one with [http.DefaultTransport].
	Client *http.Client

	// Cooldown is how long, after a key id was asked for that the issuer turned
	// out not to have, no other unknown id is asked for. Default: 30 s.
	Cooldown time.Duration

	// Refresh is the age at which keys are fetched again, so that one the issuer
	// has withdrawn stops working. Default: 5 min.
	Refresh time.Duration

	// MaxStale is the age to which keys serve while the issuer cannot be asked.
	// Default: 24 h.
	MaxStale time.Duration

	// Timeout bounds one fetch, discovery included. Default: 5 s.
	Timeout time.Duration

	// Now is the clock. Default: [time.Now].
	Now func() time.Time
}

const (
	firstBackoff = time.Second
	lastBackoff  = 5 * time.Second // so that after an outage requests pass within that time

	// refreshGrace is how far beyond Refresh keys serve without a request waiting
	// for newer ones: the time a refresh in the background may take.
	refreshGrace = 5 * time.Second
	// refreshWait bounds that waiting: after it, the keys at hand serve.
	refreshWait = time.Second

	// goneAfter is how many times in a row Keycloak has to say that there is no such
	// realm for its keys to stop serving. All other failures are an outage.
	goneAfter = 2

	maxAbsent  = 1000 // key ids remembered as not there
	maxWaiting = 100  // requests that wait at the same time for one fetch while other keys are known
)

// KeyFetch is what came of asking an issuer for its keys.
type KeyFetch struct {
	Issuer   string
	Duration time.Duration
	Err      error // nil if there are new keys; never quotes the answer
	Keys     int   // usable for verifying
	Skipped  int   // not usable: for encryption, too weak, malformed, too many
	Changed  bool  // the first failure after success, or the first success after failures
}

// Observer learns what verifiers do besides verifying. It must return quickly.
type Observer interface {
	KeysFetched(KeyFetch)
}

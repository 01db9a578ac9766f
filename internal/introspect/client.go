package introspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/clientauth"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
)

// Config says whose endpoint is asked, and as which client.
type Config struct {
	// Issuer is the realm's URL, as in tokens. Required. It is also the audience of
	// client assertions.
	Issuer string

	// BackchannelURL is the realm's URL as this server reaches it. Discovery asks
	// there; the document's issuer must still be Issuer, and the endpoint is asked at
	// BackchannelURL's scheme and host. Default: Issuer.
	BackchannelURL string

	// Endpoint is where to ask. It needs no discovery, so BackchannelURL is not used.
	// Default: introspection_endpoint of the discovery document, which has to be of
	// the origin asked.
	Endpoint string

	// ClientID is the confidential client that asks. Required.
	ClientID string

	// ClientSecret proves the client by client_secret_basic, or, with SecretInBody,
	// by client_secret_post. Either it or PrivateKey is required.
	ClientSecret string
	SecretInBody bool

	// PrivateKey proves the client by private_key_jwt, with Algorithm and KeyID: see
	// [clientauth.Config].
	PrivateKey       string
	Algorithm, KeyID string

	// Client makes the requests. Its redirect policy and cookie jar are not used.
	// Default: one with [http.DefaultTransport].
	Client *http.Client

	// Timeout bounds one call, discovery included. Default: 2 s.
	Timeout time.Duration

	// MaxConcurrent is how many calls may be under way; more fail at once. Default: 32.
	MaxConcurrent int

	// Now is the clock. Default: [time.Now].
	Now func() time.Time
}

var (
	// ErrInactive says that the issuer was asked and calls the token inactive: it has
	// ended, was revoked, is unknown, or is not for the client that asks.
	ErrInactive = errors.New("the issuer says that the token is not active, or not for the client that asks: " +
		"since Keycloak 26.6.2 that client has to be in the token's audience")

	// ErrUnavailable is wrapped by all other errors: nobody knows what the issuer
	// would say. They name the cause for the operator, and quote nothing of token,
	// credentials and answer.
	ErrUnavailable = errors.New("introspection unavailable")

	errBusy = errors.New("too many calls are under way")
)

// Client asks one endpoint as one client. It is safe for concurrent use, and holds
// nothing that would have to be closed.
type Client struct {
	credentials clientauth.Credentials
	finder      *finder
	http        *http.Client
	health      health
	slots       chan struct{} // one element per call under way
	timeout     time.Duration
	now         func() time.Time
}

// Call is what came of asking the endpoint once.
type Call struct {
	Issuer string
	Took   time.Duration
	Err    error // nil: active; [ErrInactive]; else it wraps [ErrUnavailable]

	// Changed is true for the first failure after success, and for the first success
	// after such a failure. Failures that the token itself may have caused change
	// nothing: of them, one a minute has it true, since who sends tokens could fill
	// logs otherwise. No more often it is true for failures with unproven tokens.
	Changed bool
}

// New returns a client. It does no network I/O.
func New(cfg Config) (*Client, error) {
	if cfg.Timeout < 0 || cfg.MaxConcurrent < 0 {
		return nil, errors.New("timeout, max concurrent: negative")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	creds, err := clientauth.New(clientauth.Config{
		ClientID: cfg.ClientID, Secret: cfg.ClientSecret, SecretInBody: cfg.SecretInBody,
		PrivateKey: cfg.PrivateKey, Algorithm: cfg.Algorithm, KeyID: cfg.KeyID, Audience: cfg.Issuer, Now: cfg.Now,
	})
	if err != nil {
		return nil, err
	}
	found, err := newFinder(cfg)
	if err != nil {
		return nil, err
	}
	client := copyOf(cfg.Client)
	client.CheckRedirect = func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // token and credentials go nowhere else
	}
	return &Client{
		credentials: creds,
		finder:      found,
		http:        client,
		slots:       make(chan struct{}, cmp.Or(cfg.MaxConcurrent, 32)),
		timeout:     cmp.Or(cfg.Timeout, 2*time.Second),
		now:         cfg.Now,
	}, nil
}

// Introspect returns the JSON object with which the endpoint calls the token active, as
// it came. The error is [ErrInactive], or wraps [ErrUnavailable].
//
// While the endpoint fails, it is asked after pauses of 1, 2, 4, 5, 5 … seconds, by
// one call; the others fail at once. A ctx that is cancelled says nothing of the
// endpoint; one whose deadline passes does. Questions that [token.Unproven] tells of
// have such pauses among themselves, and cause none for the others.
func (c *Client) Introspect(ctx context.Context, raw string) ([]byte, error) {
	return c.ask(ctx, raw, nil)
}

// Observed is a [Client] as one configuration uses it. Clients may be shared, by
// configurations with loggers of their own.
type Observed struct {
	client  *Client
	observe func(Call)
}

// Observed returns c with somebody who is told of each call made. Calls that fail
// without asking (busy, or in a pause) are not reported. observe must return quickly.
func (c *Client) Observed(observe func(Call)) *Observed { return &Observed{c, observe} }

// Introspect is [Client.Introspect].
func (o *Observed) Introspect(ctx context.Context, raw string) ([]byte, error) {
	return o.client.ask(ctx, raw, o.observe)
}

func (c *Client) ask(ctx context.Context, raw string, observe func(Call)) ([]byte, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	default:
		return nil, unavailable(errBusy)
	}
	unproven := token.Unproven(ctx)
	turn, err := c.health.begin(c.now(), unproven)
	if err != nil {
		return nil, err
	}
	defer c.health.end(turn) // also if a transport of the caller's say panics

	start := time.Now()
	answer, err := c.exchange(ctx, raw)
	call := Call{Issuer: c.finder.issuer, Took: time.Since(start), Err: err}
	if err == nil || errors.Is(err, ErrInactive) {
		call.Changed = c.health.answered(turn)
	} else if !errors.Is(ctx.Err(), context.Canceled) {
		switch { // it may have moved
		case causedByToken(err):
		case unproven:
			c.finder.doubt()
		default:
			c.finder.forget()
		}
		call.Changed = c.health.failed(turn, c.now(), err)
	}
	if observe != nil {
		observe(call)
	}
	return answer, err
}

// exchange is one call, within the time for it.
func (c *Client) exchange(ctx context.Context, raw string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	endpoint, err := c.finder.find(ctx)
	if err != nil {
		return nil, unavailable(fmt.Errorf("discovery: %w", err))
	}
	// RFC 7662 §2.1. The hint saves Keycloak nothing, but others a look-up.
	form := url.Values{"token": {raw}, "token_type_hint": {"access_token"}}
	header := http.Header{
		"Accept":       {"application/json"}, // and not application/jwt, a signed answer
		"Content-Type": {"application/x-www-form-urlencoded"},
	}
	if err := c.credentials.Add(form, header); err != nil {
		return nil, unavailable(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, unavailable(errors.New("the endpoint is not a URL that can be asked"))
	}
	req.Header = header
	// Unlike other POSTs, this one changes nothing: it may be sent once more where an
	// idle connection turns out to be closed (an empty list is sent to nobody).
	req.Header["Idempotency-Key"] = []string{}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, unavailable(withoutQuotes(err))
	}
	defer resp.Body.Close()
	return readAnswer(resp)
}

// copyOf is a client of our own that keeps no cookies.
func copyOf(given *http.Client) *http.Client {
	own := http.Client{}
	if given != nil {
		own = *given
	}
	own.Jar = nil
	return &own
}

// Package keycloakcacheauth is a Caddy module that lets requests through to a
// multi-tenant application if their Keycloak access token belongs to a member
// of the tenant they are for. See [Handler].
package keycloakcacheauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
	// the resolvers that come with the module
	_ "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/claims"
	_ "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/http"
	_ "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/keycloak"
	_ "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/sql"
	_ "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/static"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler lets a request through if it carries a valid Keycloak access token
// of a user who is an active member of the tenant the request is for. What
// comes next gets that user as placeholders and as request headers that no
// client can forge.
//
// For each request it
//
//  1. deletes every header it owns, in any spelling, from what the client sent;
//  2. verifies the bearer token with the realm's published keys;
//  3. works out the tenant, from the header `X-Tenant-ID` by default;
//  4. finds the member, the application's own record of the user in the
//     tenant: in memory, else in Redis, else by asking a resolver;
//  5. checks the member, cached or not: its `kc_id` is the token's `sub`, its
//     tenant is the request's, and it is active;
//  6. sets placeholders and headers, a signed assertion among them if one is
//     configured, and calls the next handler.
//
// Every refusal is an error, so `handle_errors` routes apply:
//
// Situation | Answer
// ----------|-------
// no credential, or another scheme than Bearer | 401, `WWW-Authenticate: Bearer`
// a malformed bearer credential, or several credentials | 400, `error="invalid_request"`
// a token that is not acceptable, for whatever reason | 401, `error="invalid_token"`
// a token without a required scope, role, group or level | 403, `error="insufficient_scope"`
// the tenant is missing or malformed | 400
// a token from a cookie, in a changing request that is not shown to be of this origin | 403
// not the token's tenant, not a member of it, or not an active one | 403, or 404 with `hide_tenants`
// keys or resolver cannot answer, and nothing is cached | 503 with `Retry-After`
// the member's identity is too large for headers, or cannot be signed | 500
//
// These placeholders are set. One about which nothing is known is empty.
// Lists are joined by commas, with `%`, commas and control characters in their
// items percent-encoded.
//
// Placeholder | Description
// ------------|------------
// `{http.auth.user.id}` | The user's Keycloak id, the token's `sub`
// `{http.auth.user.tenant}` | The tenant
// `{http.auth.user.member_id}` | The application's own id of the member
// `{http.auth.user.roles}` | The member's roles: its attribute `roles`
// `{http.auth.user.member.*}` | Any attribute of the member, by its name
// `{http.auth.user.username}` | The token's `preferred_username`
// `{http.auth.user.name}` | The token's `name`
// `{http.auth.user.email}` | The token's `email`, if `email_verified` is true
// `{http.auth.user.email_unverified}` | The token's `email`, verified or not
// `{http.auth.user.realm_roles}` | The token's `realm_access.roles`
// `{http.auth.user.groups}` | The token's `groups`
// `{http.auth.user.scope}` | The token's `scope`
// `{http.auth.user.claims.*}` | Any claim of the token, by its name or dotted path
// `{http.auth.user.anonymous}` | `true` for a request let through without a user, else `false`
// `{http.keycloak_cache_auth.cache}` | Where the member was found: `memory`, `redis`, `resolver`, `stale` (in a cache, too old, while the resolvers fail), or `none`
// `{http.keycloak_cache_auth.age}` | How many seconds ago the member was resolved
// `{http.keycloak_cache_auth.reason}` | How the request was decided, e.g. `member`, `expired` or `not_a_member`
// `{http.keycloak_cache_auth.requested_tenant}` | The tenant that the request names; well-formed, but not proven to be the user's
//
// A request that matches no matcher of the handler passes it by with whatever
// headers the client sent. Use `strip_only` on routes that need no login.
type Handler struct {
	// The realms whose tokens are accepted. At least one is required. With more
	// than one, no tenant may be open to two of them, or the resolvers must tell
	// issuers apart: otherwise one realm could speak for another's users.
	Issuers []*Issuer `json:"issuers,omitempty"`

	// The audiences of which a token must name one in `aud`. Required, unless
	// `audience_off` is set: without an audience a token that was made for any
	// other service of the realm would be accepted. Keycloak names your service
	// in `aud` once an audience mapper says so.
	Audiences []string `json:"audiences,omitempty"`

	// Accepts tokens whatever their `aud`.
	AudienceOff bool `json:"audience_off,omitempty"`

	// The clients that a token may have been issued to (`azp`). Default: any.
	AuthorizedParties []string `json:"authorized_parties,omitempty"`

	// The algorithms a token may be signed with: `RS256`, `PS256`, `ES256` and
	// `EdDSA` by default; also `RS384`, `RS512`, `PS384`, `PS512`, `ES384` and
	// `ES512`.
	Algorithms []string `json:"algorithms,omitempty"`

	// How far the clocks of Keycloak and this server may be apart, at most
	// 60s. Default: 10s.
	Leeway *caddy.Duration `json:"leeway,omitempty"`

	// The longest life of a token, `exp` minus `iat`. Default: 24h.
	MaxTokenLifetime caddy.Duration `json:"max_token_lifetime,omitempty"`

	// Where a request may carry its token. Default: the header `Authorization`.
	// Only these places count, and a request that uses two of them is refused.
	TokenFrom []TokenSource `json:"token_from,omitempty"`

	// What a token must say besides being valid: all of it, on each request.
	Require []Requirement `json:"require,omitempty"`

	// What becomes of tokens that are bound to a key of their client. (Tokens
	// bound to a client certificate, RFC 8705, are accepted with that
	// certificate, if it was shown to this very Caddy, and refused otherwise.)
	DPoP *DPoP `json:"dpop,omitempty"`

	// The path to which Keycloak sends back-channel logouts: the
	// "Backchannel logout URL" of a client there. Tokens of a session or a user
	// that was logged out are then refused, by all nodes that share the store,
	// and the user's members are resolved anew. Default: none.
	LogoutPath string `json:"logout_path,omitempty"`

	// The clients whose logouts count: a logout token names one of them in
	// `aud`. Default: the audiences.
	LogoutClients []string `json:"logout_clients,omitempty"`

	// The URL by which clients know this site, such as
	// `https://app.example.com`: the `resource` of RFC 9728. It is never taken
	// from a request. Goes with `resource_metadata`.
	Resource string `json:"resource,omitempty"`

	// The path on which the document of RFC 9728 is served, to anybody: it tells
	// clients which realms' tokens are accepted here. Challenges name it.
	// `default` is the path that the RFC derives from `resource`. Default: none.
	ResourceMetadata string `json:"resource_metadata,omitempty"`

	// Lets requests without a token through as anonymous. A token that is not
	// acceptable is refused all the same.
	Optional bool `json:"optional,omitempty"`

	// What becomes of CORS preflights (`OPTIONS` with `Origin` and
	// `Access-Control-Request-Method`), which never carry a token:
	// `authenticate` (the default) treats them as any other request, `pass` lets
	// them through as anonymous.
	Preflight string `json:"preflight,omitempty"`

	// Decides about each request, logs and counts, and lets all of them through:
	// for trying a configuration out in front of an upstream that still checks
	// its users by itself. **It protects nothing**, and warns of that when it is
	// loaded. No response is changed, and no request waits for longer than
	// `timeout`. Identity headers that the client sent are deleted, members get
	// theirs, and all other requests keep the tenant header as the client sent it.
	ReportOnly bool `json:"report_only,omitempty"`

	// A response header by which the upstream says who the user is, to be
	// compared with what this module says. Goes with `report_only`.
	CompareHeader *CompareHeader `json:"compare_header,omitempty"`

	// Deletes the owned headers from the request and does nothing else: for
	// routes that need no login. Goes with `tenant_header` and `headers` only,
	// which name what is owned.
	StripOnly bool `json:"strip_only,omitempty"`

	// The request header that names the tenant. Default: `X-Tenant-ID`.
	TenantHeader string `json:"tenant_header,omitempty"`

	// What names the tenant instead of a header: a placeholder, such as
	// `{http.request.host.labels.2}`, or text with placeholders in it.
	Tenant string `json:"tenant,omitempty"`

	// The tenant of requests that name none. By default they are refused.
	TenantDefault string `json:"tenant_default,omitempty"`

	// A regular expression (https://pkg.go.dev/regexp/syntax) that the whole
	// name of a tenant must match. Default: `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`.
	// Whatever it says, a tenant has at most 63 bytes and holds no colon,
	// comma, brace, space, control or non-ASCII character.
	TenantPattern string `json:"tenant_pattern,omitempty"`

	// The claim in which the token itself must name the tenant: `organization`,
	// which is understood in all of Keycloak's shapes, or the dotted path of a
	// claim that is a text or a list of texts. Default: none.
	TenantClaim string `json:"tenant_claim,omitempty"`

	// The tenants that values stand for, such as the hosts that customers have of
	// their own: `{"shop.example.com": "acme"}`. What a request says is looked up
	// as it is, but for hosts (where `tenant` is made of placeholders of the host
	// alone), which have no case. What is not listed is no tenant.
	TenantAliases map[string]string `json:"tenant_aliases,omitempty"`

	// Takes values that `tenant_aliases` does not list for tenants themselves.
	TenantAliasesOpen bool `json:"tenant_aliases_open,omitempty"`

	// Answers all of these alike, with 404: an unknown tenant, one that the token
	// is not good for, one that the user is no member of, or not an active one. So
	// nobody learns which tenants there are.
	HideTenants bool `json:"hide_tenants,omitempty"`

	// How old a cached member may be before it is resolved again. Thus also the
	// longest time that a change of a member may go unnoticed. Default: 60s.
	TTL caddy.Duration `json:"ttl,omitempty"`

	// How long it is remembered that somebody is no member, or not an active
	// one. Default: 5s.
	NegativeTTL caddy.Duration `json:"negative_ttl,omitempty"`

	// How much older than `ttl` a member may be while the resolvers fail.
	// Default: 0, members that are too old are then refused with 503.
	StaleIfError caddy.Duration `json:"stale_if_error,omitempty"`

	// How long before its `ttl` has passed a member that is in use is renewed,
	// in the background. Default: 0, it is not; whoever comes next waits.
	RefreshAhead caddy.Duration `json:"refresh_ahead,omitempty"`

	// The cache in this process.
	Memory Memory `json:"memory,omitzero"`

	// The caches that several nodes share: at most one for all tenants, and any
	// number for tenants of their own. Default: none.
	Stores []*Store `json:"stores,omitempty"`

	// Where a member that is in no cache is looked up. The next is asked only
	// when the one before says that it does not know the user, never when it
	// failed. At least one is required.
	ResolversRaw []json.RawMessage `json:"resolvers,omitempty" caddy:"namespace=http.handlers.keycloak_cache_auth.resolvers inline_key=resolver"`

	// The most time that the resolvers may take together. Default: 2s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// How many calls to the resolvers there may be at a time, on this node.
	// Look-ups beyond that wait, a bounded number of them. Default: 64.
	MaxLookups int `json:"max_lookups,omitempty"`

	// How many of them may be for one tenant. Default: a quarter of all.
	MaxLookupsPerTenant int `json:"max_lookups_per_tenant,omitempty"`

	// The headers that tell the upstream who the user is, instead of the
	// default ones: `X-User-ID`, `X-User-Name`, `X-User-Email` (if verified),
	// `X-User-Roles`, `X-Tenant-ID` (and the tenant header, if that is another),
	// `X-Member-ID` and `X-Auth-Status`. The default names are owned, and thus
	// deleted, in any case. All of them together may take 16 KiB; a request that
	// would need more is refused.
	Headers []Header `json:"headers,omitempty"`

	// Sends no identity headers. The default names are deleted all the same.
	HeadersOff bool `json:"headers_off,omitempty"`

	// Signs who the user is, for upstreams that do not trust the network. Default:
	// nothing is signed.
	Assertion *Assertion `json:"assertion,omitempty"`

	// Does not pass the token on to what comes next, wherever it came from.
	StripToken bool `json:"strip_token,omitempty"`

	// The name of a response header, usually `Cache-Status` (RFC 9211), that
	// tells where the member was found and how long it is good, for debugging. It
	// tells clients, too. Default: none.
	CacheStatus string `json:"cache_status,omitempty"`

	compare    *comparison       // nil for none
	metadata   *resourceMetadata // nil for none
	assertions *assertions       // nil for none
	owned      *ownedHeaders
	headers    headerSet
	visits     *visits
	sources    tokenSources
	tenant     tenantRule
	tokens     *token.Issuers
	sender     senderRule
	bindings   []tenantBinding // of the issuers, in their order

	issuerURLs []string // expanded, likewise
	required   []token.Requirement

	introspects   *introspectObserver // nil if no issuer does
	logoutClients []string            // audiences of logout tokens
	members       *finder
	mistakes      *mistakeLog
	metrics       *metrics
	logger        *zap.Logger
	releases      []func() error // what Cleanup gives back
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.keycloak_cache_auth",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision prepares the handler. It does no network I/O: `caddy validate`
// provisions too, and Keycloak may well be a site of this very Caddy.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = sampled(ctx.Logger())
	var err error
	if h.metrics, err = newMetrics(ctx.GetMetricsRegistry()); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	if err := h.check(); err != nil {
		return err
	}
	if h.headers, err = newHeaderSet(h.Headers, h.HeadersOff, h.tenantHeader()); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	owned := append(h.headers.names(), h.tenantHeader())
	if h.Assertion != nil {
		owned = append(owned, h.Assertion.header())
	}
	h.owned = newOwnedHeaders(owned...)
	if h.StripOnly {
		return nil
	}
	if h.tenant, err = h.newTenantRule(); err != nil {
		return err
	}
	if h.compare, err = h.newComparison(); err != nil {
		return err
	}
	h.visits = new(visits)
	h.sources = newTokenSources(h.TokenFrom)
	h.sources.warn(h.logger)
	h.mistakes = &mistakeLog{logger: h.logger, now: time.Now}
	repl := caddy.NewReplacer()
	if err := h.provisionMembers(ctx, repl); err != nil {
		return err
	}
	if err := h.provisionTokens(ctx, repl); err != nil {
		return err
	}
	if err := h.provisionAssertion(repl); err != nil {
		return err
	}
	h.addViews()
	if h.ReportOnly {
		h.logger.Warn("report_only: nothing is protected; every request is let through, whatever is decided")
	}
	return nil
}

// Cleanup gives back what Provision took, also where that failed half-way.
// Requests may still be under way, so nothing they use is touched.
func (h *Handler) Cleanup() error {
	if h.visits != nil {
		h.visits.ended.Store(true)
	}
	errs := make([]error, 0, len(h.releases))
	for _, release := range h.releases {
		errs = append(errs, release())
	}
	return errors.Join(errs...)
}

// sampled bounds how often each message is logged: a poisoned cache or a broken
// query fails each request in the same way.
func sampled(logger *zap.Logger) *zap.Logger {
	const perSecond = 10
	return logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, time.Second, perSecond, 0)
	}))
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)

package keycloakcacheauth

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/shared"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// provisionTokens gets the issuers' keys and what decides on tokens.
func (h *Handler) provisionTokens(ctx caddy.Context, repl *caddy.Replacer) error {
	audiences, err := expandAll(repl, h.Audiences)
	if err != nil {
		return fmt.Errorf("audience: %w", err)
	}
	parties, err := expandAll(repl, h.AuthorizedParties)
	if err != nil {
		return fmt.Errorf("authorized_party: %w", err)
	}
	if h.sender, err = newSenderRule(h, repl); err != nil {
		return err
	}
	policy := token.Config{
		Bound:             h.sender.verifies(),
		Audiences:         audiences,
		AuthorizedParties: parties,
		Algorithms:        h.Algorithms,
		Leeway:            h.leeway(),
		MaxLifetime:       time.Duration(h.MaxTokenLifetime),
		MaxSize:           maxTokenSize,
		Observer:          keyObserver{h.metrics, h.logger},
	}
	var issuers []token.Issuer
	var expanded []Issuer
	for _, configured := range h.Issuers {
		issuer, err := configured.expand(repl)
		if err != nil {
			return err
		}
		if err := issuer.check(); err != nil {
			return err
		}
		for _, tenant := range issuer.Tenants {
			if !h.tenant.valid(tenant) {
				return fmt.Errorf("tenants: %q is not a tenant that tenant_pattern allows", tenant)
			}
		}
		allowed := func(tenant string) bool {
			return h.tenant.valid(tenant) && (len(issuer.Tenants) == 0 || slices.Contains(issuer.Tenants, tenant))
		}
		verifier, release, err := issuer.newVerifier(ctx, policy, allowed)
		if err != nil {
			return err
		}
		h.releases = append(h.releases, release)
		if issuer.Introspect != nil {
			h.introspects = &introspectObserver{h.metrics, h.logger}
		}
		issuers, expanded = append(issuers, verifier), append(expanded, issuer)
		h.bindings = append(h.bindings, newTenantBinding(issuer, h.TenantClaim))
		h.issuerURLs = append(h.issuerURLs, issuer.URL)
	}
	resource, err := repl.ReplaceOrErr(h.Resource, true, true)
	if err != nil {
		return fmt.Errorf("resource: %w", err)
	}
	if resource != "" {
		if err := checkResourceURL(resource); err != nil {
			return err
		}
	}
	if h.metadata, err = newResourceMetadata(h, resource, expanded); err != nil {
		return err
	}
	seen, release, err := acquireSeenTokens(cmp.Or(h.Memory.MaxTokensSize, defaultMaxTokensSize))
	if err != nil {
		return err
	}
	h.releases = append(h.releases, release)
	if h.tokens, err = token.NewIssuers(seen.Seen, issuers...); err != nil {
		return err
	}
	if h.logoutClients, err = expandAll(repl, h.LogoutClients); err != nil {
		return fmt.Errorf("logout_path: %w", err)
	}
	if len(h.logoutClients) == 0 {
		h.logoutClients = audiences
	}
	for _, r := range h.Require {
		h.required = append(h.required, r.token())
	}
	return nil
}

// seenTokens remembers verified tokens for all configurations that give as much
// memory to that. It holds facts only: each handler looks at times, keys and its
// own policy on each request.
var seenTokens = shared.NewPool[*seenMemory]()

type seenMemory struct{ *token.Seen }

func acquireSeenTokens(size int64) (*seenMemory, func() error, error) {
	return seenTokens.Acquire(size, func() (*seenMemory, error) {
		seen, err := token.NewSeen(token.SeenConfig{MaxBytes: size})
		if err != nil {
			return nil, err
		}
		return &seenMemory{seen}, nil
	})
}

// Destruct implements [caddy.Destructor].
func (s *seenMemory) Destruct() error {
	s.Close()
	return nil
}

// provisionMembers loads the resolvers and opens the cache before them.
func (h *Handler) provisionMembers(ctx caddy.Context, repl *caddy.Replacer) error {
	mods, err := ctx.LoadModule(h, "ResolversRaw")
	if err != nil {
		return fmt.Errorf("loading resolver: %w", err)
	}
	var resolvers []member.Resolver
	for _, mod := range mods.([]any) {
		resolver, ok := mod.(member.Resolver)
		if !ok {
			return fmt.Errorf("resolver: %T does not implement member.Resolver", mod)
		}
		resolvers = append(resolvers, resolver)
	}
	if err := h.checkIssuersApart(resolvers); err != nil {
		return err
	}

	shelves, releases, err := newStoreSet(ctx, h, repl, resolvers)
	h.releases = append(h.releases, releases...)
	if err != nil {
		return err
	}
	gate, release, err := acquireGate(resolvers, h.MaxLookups, h.MaxLookupsPerTenant)
	if err != nil {
		return err
	}
	h.releases = append(h.releases, release)
	h.members = &finder{
		stores:    shelves,
		gate:      gate,
		resolvers: resolvers,
		claims:    newClaimsRead(resolvers),
		uncached:  !slices.ContainsFunc(resolvers, func(r member.Resolver) bool { return !uncached(r) }),
		aside:     h.ReportOnly,
		life: memberLife{
			ttl:      orDefault(h.TTL, defaultTTL),
			negative: orDefault(h.NegativeTTL, defaultNegativeTTL),
			stale:    time.Duration(h.StaleIfError),
			refresh:  time.Duration(h.RefreshAhead),
		},
		timeout: orDefault(h.Timeout, defaultTimeout),
		// reading and writing Redis come on top, and a little for the rest
		patience:  orDefault(h.Timeout, defaultTimeout) + 2*h.slowestStore() + time.Second,
		down:      make([]atomic.Bool, len(resolvers)),
		staleness: newStaleness(h.metrics.stale),
		metrics:   h.metrics,
		logger:    h.logger,
		now:       time.Now,
	}
	h.releases = append(h.releases, func() error { h.members.staleness.end(); return nil })
	for _, resolver := range resolvers {
		if source, ok := resolver.(watcher); ok {
			h.metrics.watches.add(source)
		}
	}
	for _, s := range shelves.all {
		for _, resolver := range resolvers {
			if source, ok := resolver.(watcher); ok {
				h.releases = append(h.releases, s.watches.add(s.memberStore, source))
			}
		}
	}
	return nil
}

// addViews lets the admin API find this handler's members, once it is complete.
func (h *Handler) addViews() {
	for _, s := range h.members.stores.all {
		h.releases = append(h.releases, s.views.add(&view{s.keys, h.issuersOf, h.members.life}))
	}
}

// slowestStore is the longest that a look-up may spend on any store.
func (h *Handler) slowestStore() time.Duration {
	slowest := defaultRedisTimeout
	for _, s := range h.Stores {
		slowest = max(slowest, time.Duration(s.Timeout))
	}
	return slowest
}

// issuersOf returns the issuers that a user of a tenant may be of.
func (h *Handler) issuersOf(tenant string) []string {
	var issuers []string
	for i, binding := range h.bindings {
		if len(binding.tenants) == 0 || slices.Contains(binding.tenants, tenant) {
			issuers = append(issuers, strings.ReplaceAll(h.issuerURLs[i], token.Placeholder, tenant))
		}
	}
	return issuers
}

// keyObserver carries what a shared key set sees to the configuration whose
// request made it look: its metrics and its log.
type keyObserver struct {
	metrics *metrics
	logger  *zap.Logger
}

// KeysFetched implements [token.Observer]: one line per change of state.
func (o keyObserver) KeysFetched(fetch token.KeyFetch) {
	o.metrics.keysFetched(fetch.Duration, fetch.Err)
	switch {
	case !fetch.Changed:
	case errors.Is(fetch.Err, token.ErrNoRealm):
		// anybody can name a realm that is not there
		o.logger.Debug("there is no such realm", zap.String("issuer", fetch.Issuer))
	case fetch.Err != nil:
		o.logger.Error("signing keys cannot be fetched; tokens are verified with the keys known so far, if any",
			zap.String("issuer", fetch.Issuer), zap.Error(fetch.Err))
	default:
		o.logger.Info("signing keys fetched",
			zap.String("issuer", fetch.Issuer), zap.Int("keys", fetch.Keys), zap.Int("skipped", fetch.Skipped))
	}
}

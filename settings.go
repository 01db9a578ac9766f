package keycloakcacheauth

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Defaults and bounds of the settings.
const (
	defaultTenantHeader = "X-Tenant-ID"
	defaultLeeway       = 10 * time.Second
	defaultTTL          = time.Minute
	defaultNegativeTTL  = 5 * time.Second
	defaultTimeout      = 2 * time.Second

	maxLeeway  = time.Minute
	maxTTL     = 24 * time.Hour
	maxStale   = 30 * 24 * time.Hour
	maxTimeout = time.Minute

	// maxTokenLifetime is the longest that can be configured: a year.
	maxTokenLifetime = 365 * 24 * time.Hour

	// maxTokenSize is the longest token in bytes. One of a user with 150 realm
	// roles has some 9,000; Caddy itself stops at about 16 KiB of headers.
	maxTokenSize = 16 << 10

	memoryURL = "memory://"

	preflightAuthenticate = "authenticate"
	preflightPass         = "pass"
)

// signingAlgorithms are all that can be configured: no HMAC, no `none`.
var signingAlgorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// check tells what is wrong with the settings as far as they can be told
// without expanding placeholders. It runs for a Caddyfile when it is adapted,
// and for JSON when it is loaded.
func (h *Handler) check() error {
	if h.TenantHeader != "" {
		if err := checkTenantHeader(h.TenantHeader); err != nil {
			return fmt.Errorf("tenant_header: %w", err)
		}
	}
	if h.HeadersOff && len(h.Headers) > 0 {
		return errors.New("header: off excludes every other header line; keep one of the two")
	}
	if _, err := newHeaderSet(h.Headers, h.HeadersOff, h.tenantHeader()); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if h.StripOnly {
		return h.checkStripOnly()
	}
	for _, check := range []func() error{h.checkToken, h.checkTenant, h.checkMembers, h.checkReportOnly, h.checkCacheStatus} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// checkStripOnly refuses what would look as if it protected something.
func (h *Handler) checkStripOnly() error {
	if len(h.Issuers) > 0 || len(h.Audiences) > 0 || h.AudienceOff || len(h.ResolversRaw) > 0 || h.Optional ||
		h.Preflight != "" || h.DPoP != nil || h.Assertion != nil || h.LogoutPath != "" || len(h.LogoutClients) > 0 || len(h.AuthorizedParties) > 0 || len(h.TokenFrom) > 0 || len(h.Require) > 0 ||
		h.Resource != "" || h.ResourceMetadata != "" || h.MaxTokenLifetime != 0 || h.TenantClaim != "" || h.Tenant != "" || h.TenantDefault != "" || h.TenantPattern != "" ||
		len(h.TenantAliases) > 0 || h.TenantAliasesOpen || h.HideTenants || h.ReportOnly || h.CompareHeader != nil || h.CacheStatus != "" ||
		len(h.Stores) > 0 || h.StripToken || len(h.Algorithms) > 0 || h.Leeway != nil ||
		h.TTL != 0 || h.NegativeTTL != 0 || h.StaleIfError != 0 || h.RefreshAhead != 0 || h.MaxLookups != 0 || h.MaxLookupsPerTenant != 0 || h.Timeout != 0 || h.Memory != (Memory{}) {
		return errors.New("strip_only admits everybody, so it goes with tenant_header and header only; remove it or the other options")
	}
	return nil
}

func (h *Handler) checkToken() error {
	switch {
	case len(h.Issuers) == 0:
		return errors.New("issuer is required; give the realm's URL as tokens carry it in `iss`, such as https://sso.example.com/realms/main")
	case slices.Contains(h.Issuers, nil):
		return errors.New("issuer: null is not an issuer")
	case len(h.Audiences) == 0 && !h.AudienceOff:
		return errors.New("audience is required; give the name that Keycloak's audience mapper puts into `aud`, or `audience off` to accept tokens made for other services too")
	case len(h.Audiences) > 0 && h.AudienceOff:
		return errors.New("audience: off excludes names of audiences; keep one of the two")
	case slices.Contains(h.Audiences, ""):
		return errors.New("audience: a name is empty; write what `aud` must contain")
	case h.Preflight != "" && h.Preflight != preflightAuthenticate && h.Preflight != preflightPass:
		return fmt.Errorf("preflight: %q is neither %s nor %s", h.Preflight, preflightAuthenticate, preflightPass)
	case h.leeway() < 0 || h.leeway() > maxLeeway:
		return fmt.Errorf("leeway: %s is not between 0s and %s", h.leeway(), maxLeeway)
	}
	for _, name := range h.Algorithms {
		if err := checkAlgorithm(name); err != nil {
			return fmt.Errorf("algorithms: %w", err)
		}
	}
	for _, name := range h.Audiences {
		if err := checkGlobalPlaceholders(name); err != nil {
			return fmt.Errorf("audience: %w", err)
		}
	}
	if h.MaxTokenLifetime < 0 || time.Duration(h.MaxTokenLifetime) > maxTokenLifetime {
		return fmt.Errorf("max_token_lifetime: %s is negative or longer than %s", time.Duration(h.MaxTokenLifetime), maxTokenLifetime)
	}
	for _, name := range h.AuthorizedParties {
		if name == "" {
			return errors.New("authorized_party: a name is empty; write the id of a client")
		}
		if err := checkGlobalPlaceholders(name); err != nil {
			return fmt.Errorf("authorized_party: %w", err)
		}
	}
	if err := h.checkTokenFrom(); err != nil {
		return err
	}
	if err := h.checkRequirements(); err != nil {
		return err
	}
	if err := h.checkResource(); err != nil {
		return err
	}
	if err := h.DPoP.check(); err != nil {
		return err
	}
	if h.DPoP.isOn() && h.DPoP.Nonce && h.DPoP.NonceSecret == "" && slices.ContainsFunc(h.Stores, func(s *Store) bool { return s != nil && s.URL != memoryURL }) {
		return errors.New("dpop: nodes that share a store have to share the nonce's secret, too, or clients would be sent back and forth between them; give one, such as `nonce {env.DPOP_SECRET}`")
	}
	if err := h.checkLogout(); err != nil {
		return err
	}
	if err := h.checkAssertion(); err != nil {
		return err
	}
	return h.checkIssuers()
}

func (h *Handler) checkIssuers() error {
	urls := make(map[string]bool)
	for _, issuer := range h.Issuers {
		if err := issuer.checkUnexpanded(); err != nil {
			return err
		}
		if urls[issuer.URL] {
			return errors.New("issuer: the same realm is given twice; keep one of the two")
		}
		urls[issuer.URL] = true
		for _, tenant := range issuer.Tenants {
			if tenant == "" || len(tenant) > maxTenantLength {
				return errors.New("tenants: a name is empty or longer than 63 bytes; write names as requests carry them")
			}
		}
	}
	return nil
}

// checkUnexpanded checks the issuer as far as can be before its placeholders
// are expanded.
func (i Issuer) checkUnexpanded() error {
	for _, setting := range []struct{ name, value string }{
		{"issuer", hideTenant(i.URL)},
		{"jwks_url", hideTenant(i.JWKSURL)},
		{"backchannel_url", hideTenant(i.BackchannelURL)},
		{"client_certificate", i.ClientCertificateFile},
		{"client_certificate", i.ClientKeyFile},
	} {
		if err := checkGlobalPlaceholders(setting.value); err != nil {
			return fmt.Errorf("%s: %w", setting.name, err)
		}
	}
	if i.Introspect != nil {
		if err := i.Introspect.checkUnexpanded(i.InsecureHTTP); err != nil {
			return err
		}
	}
	if i.hasPlaceholder() {
		return nil
	}
	return i.check()
}

// checkUnexpanded checks the store as far as can be before its placeholders
// are expanded.
func (s Store) checkUnexpanded() error {
	for _, setting := range []struct{ name, value string }{
		{"store", s.URL},
		{"client_certificate", s.ClientCertificateFile},
		{"client_certificate", s.ClientKeyFile},
		{"server_name", s.ServerName},
	} {
		if err := checkGlobalPlaceholders(setting.value); err != nil {
			return fmt.Errorf("%s: %w", setting.name, err)
		}
	}
	for _, secret := range s.Secrets {
		if err := checkGlobalPlaceholders(secret); err != nil {
			return fmt.Errorf("secret: %w", err)
		}
	}
	for _, part := range []struct{ name, value string }{{"key_prefix", s.KeyPrefix}, {"namespace", s.Namespace}} {
		if part.value != "" && !keyPartPattern.MatchString(part.value) {
			return fmt.Errorf("%s: %q must consist of 1 to 64 letters, digits, dots, hyphens and underscores", part.name, part.value)
		}
	}
	if head, _, _ := strings.Cut(s.URL, "{"); strings.Contains(head, "://") {
		// the rest can be checked with anything in the place of secrets
		s.URL = placeholderPattern.ReplaceAllString(s.URL, "0")
	}
	return s.check()
}

// keyPartPattern is what may begin a key in Redis: no separator, and nothing
// that means something in a pattern of keys.
var keyPartPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func checkAlgorithm(name string) error {
	if !slices.Contains(signingAlgorithms, name) {
		return fmt.Errorf("%q cannot be accepted; choose from %s", name, strings.Join(signingAlgorithms, " "))
	}
	return nil
}

func (h *Handler) checkTenant() error {
	if h.Tenant != "" && h.TenantHeader != "" {
		return errors.New("tenant and tenant_header exclude each other; the tenant is told in one way")
	}
	if err := checkTenantPattern(h.TenantPattern); err != nil {
		return err
	}
	if _, err := h.newTenantRule(); err != nil {
		return err
	}
	return h.checkAliasTargets()
}

// checkTenantPattern tells why an expression is none. It must be one by itself:
// one like `a)|(b` would be none, but escape from the anchors put around it.
func checkTenantPattern(pattern string) error {
	if _, err := regexp.Compile(pattern); err != nil {
		return fmt.Errorf("tenant_pattern: %w; its syntax is that of https://pkg.go.dev/regexp/syntax", err)
	}
	return nil
}

func (h *Handler) checkMembers() error {
	switch {
	case len(h.ResolversRaw) == 0:
		return errors.New("resolver is required; it says where members are looked up, such as `resolver sql { … }`, or `resolver static { … }` for a trial")
	case h.TTL < 0 || time.Duration(h.TTL) > maxTTL:
		return fmt.Errorf("ttl: %s is negative or longer than %s", time.Duration(h.TTL), maxTTL)
	case h.Timeout < 0 || time.Duration(h.Timeout) > maxTimeout:
		return fmt.Errorf("timeout: %s is negative or longer than %s", time.Duration(h.Timeout), maxTimeout)
	case h.NegativeTTL < 0 || time.Duration(h.NegativeTTL) > maxTTL:
		return fmt.Errorf("negative_ttl: %s is negative or longer than %s", time.Duration(h.NegativeTTL), maxTTL)
	case h.StaleIfError < 0 || time.Duration(h.StaleIfError) > maxStale:
		return fmt.Errorf("stale_if_error: %s is negative or longer than %s", time.Duration(h.StaleIfError), maxStale)
	case h.RefreshAhead < 0 || time.Duration(h.RefreshAhead) > orDefault(h.TTL, defaultTTL)*3/4:
		return fmt.Errorf("refresh_ahead: %s is negative or more than three quarters of ttl, which is %s", time.Duration(h.RefreshAhead), orDefault(h.TTL, defaultTTL))
	case h.MaxLookups < 0 || h.MaxLookups > maxMaxLookups, h.MaxLookupsPerTenant < 0 || h.MaxLookupsPerTenant > maxMaxLookups:
		return fmt.Errorf("max_lookups: it is negative or more than %d", maxMaxLookups)
	case h.MaxLookupsPerTenant > cmp.Or(h.MaxLookups, defaultMaxLookups):
		return errors.New("max_lookups: there cannot be more for one tenant than in all; make the second number smaller, or leave it out")
	}
	if err := h.Memory.check(); err != nil {
		return err
	}
	if err := h.checkStores(); err != nil {
		return err
	}
	return nil
}

func (h *Handler) tenantHeader() string {
	if h.TenantHeader == "" {
		return defaultTenantHeader
	}
	return h.TenantHeader
}

func (h *Handler) leeway() time.Duration {
	if h.Leeway == nil {
		return defaultLeeway
	}
	return time.Duration(*h.Leeway)
}

func orDefault(configured caddy.Duration, preset time.Duration) time.Duration {
	if configured == 0 {
		return preset
	}
	return time.Duration(configured)
}

// placeholderPattern finds what the replacer would replace.
var placeholderPattern = regexp.MustCompile(`\{[^{}]+\}`)

func hasPlaceholder(text string) bool { return placeholderPattern.MatchString(text) }

// globalPlaceholders begin the placeholders that stand for something when a
// configuration is loaded, as opposed to when a request is served.
var globalPlaceholders = []string{"env.", "file.", "system.", "time."}

// checkGlobalPlaceholders refuses other placeholders. It names none: what
// stands between braces may be part of a password.
func checkGlobalPlaceholders(text string) error {
	for _, at := range placeholderPattern.FindAllStringIndex(text, -1) {
		if at[0] > 0 && text[at[0]-1] == '\\' {
			continue // an escaped brace
		}
		key := text[at[0]+1 : at[1]]
		if !slices.ContainsFunc(globalPlaceholders, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			return errors.New(`it holds a placeholder that is not known when the configuration is loaded; use {env.NAME} or {file./path}, and write \{ for a brace that begins none`)
		}
	}
	return nil
}

// expandAll replaces the global placeholders in each text.
func expandAll(repl *caddy.Replacer, texts []string) ([]string, error) {
	expanded := make([]string, 0, len(texts))
	for _, text := range texts {
		value, err := repl.ReplaceOrErr(text, true, true)
		if err != nil {
			return nil, err
		}
		expanded = append(expanded, value)
	}
	return expanded, nil
}

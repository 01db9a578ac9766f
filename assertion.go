package keycloakcacheauth

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/assertion"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/shared"
)

// Assertion has Caddy sign who the user is: a short-lived JWT in a header of
// its own, which the upstream verifies instead of trusting the network between.
// It says `tenant`, `member_id`, `roles` and, as `sub`, the user's Keycloak id.
// It never lasts longer than the user's token, nor than the member is good for
// without another look.
type Assertion struct {
	// What the first key is for: `EdDSA` or `ES256`. Default: whichever it is.
	Algorithm string `json:"algorithm,omitempty"`

	// The site's keys: each the path of a PEM file, or its content as a
	// placeholder such as `{env.ASSERTION_KEY}`. Ed25519, or ECDSA on P-256. The
	// first one signs; all of them are published. To change keys, add the new one
	// behind the old, put it in front once upstreams have had time to fetch the
	// keys anew, and drop the old one a while later. At least one is required.
	Keys []string `json:"keys,omitempty"`

	// The upstreams that are to accept the assertion, its `aud`. Required.
	Audiences []string `json:"audiences,omitempty"`

	// Who signs, its `iss`: the site. Default: `resource`, if that is set.
	Issuer string `json:"issuer,omitempty"`

	// How long an assertion is good, at most. `5s` to `10m`. Default: 60s.
	TTL caddy.Duration `json:"ttl,omitempty"`

	// The header that it is sent in. Default: `X-User-Assertion`.
	Header string `json:"header,omitempty"`

	// The path on which the public keys are served, to anybody, as a JWK set.
	// Default: `/.well-known/user-assertion/jwks.json`.
	JWKSPath string `json:"jwks_path,omitempty"`
}

const (
	defaultAssertionPath = "/.well-known/user-assertion/jwks.json"

	// assertionKeysAge is how long the key set may be cached, in seconds.
	assertionKeysAge = 300
)

// header is the name of the header, as it is configured.
func (a *Assertion) header() string { return cmp.Or(a.Header, headerAssertion) }

// jwksPath is the path of the keys.
func (a *Assertion) jwksPath() string { return cmp.Or(a.JWKSPath, defaultAssertionPath) }

// check tells what is wrong with the settings as far as can be before their
// placeholders are expanded.
func (a *Assertion) check() error {
	switch {
	case len(a.Keys) == 0:
		return errors.New("assertion: a key is required; make one with `openssl genpkey -algorithm ed25519` and give the file's path")
	case len(a.Audiences) == 0:
		return errors.New("assertion: audience is required; name the upstream, as that expects it in `aud`")
	case a.Algorithm != "" && a.Algorithm != "EdDSA" && a.Algorithm != "ES256":
		return errors.New("algorithm: assertions are signed with EdDSA or ES256; leave it out for the one of the first key")
	case a.TTL != 0 && (time.Duration(a.TTL) < assertion.MinTTL || time.Duration(a.TTL) > assertion.MaxTTL):
		return fmt.Errorf("ttl: an assertion is good for %s to %s, not for %s", assertion.MinTTL, assertion.MaxTTL, time.Duration(a.TTL))
	case a.JWKSPath != "" && !isPlainPath(a.JWKSPath):
		return errors.New("jwks_path is a plain path, such as " + defaultAssertionPath + ", without query or escapes")
	case slices.Contains(a.Audiences, ""):
		return errors.New("audience: a name is empty; name the upstream, as that expects it in `aud`")
	}
	for _, key := range a.Keys {
		if err := checkAssertionKey(key); err != nil {
			return fmt.Errorf("key: %w", err)
		}
	}
	for _, name := range a.Audiences {
		if err := checkGlobalPlaceholders(name); err != nil {
			return fmt.Errorf("audience: %w", err)
		}
	}
	if err := checkGlobalPlaceholders(a.Issuer); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	if err := checkHeaderName(a.header()); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	folded := string(fold(nil, a.header()))
	for _, owned := range defaultOwned {
		if owned != headerAssertion && folded == string(fold(nil, owned)) {
			return fmt.Errorf("header: %s tells the upstream something else about the user; use another name, such as %s", a.header(), headerAssertion)
		}
	}
	return nil
}

// checkAssertionKey checks a key before it is read. What it is told may be the
// key itself, so its errors quote nothing.
func checkAssertionKey(key string) error {
	switch {
	case key == "":
		return errors.New("it is empty; give the path of a PEM file, or its content as {env.NAME}")
	case !hasPlaceholder(key) && strings.ContainsAny(key, "\r\n"):
		return errors.New("a key in the configuration itself shows wherever that does; give the path of a PEM file, or its content as {env.NAME}")
	default:
		return checkGlobalPlaceholders(key)
	}
}

// checkAssertion tells what is wrong with the assertion beside the other
// settings.
func (h *Handler) checkAssertion() error {
	a := h.Assertion
	if a == nil {
		return nil
	}
	if err := a.check(); err != nil {
		if strings.HasPrefix(err.Error(), "assertion: ") {
			return err
		}
		return fmt.Errorf("assertion: %w", err)
	}
	path := a.jwksPath()
	switch {
	case a.Issuer == "" && h.Resource == "":
		return errors.New("assertion: issuer is required; give what upstreams are to find in `iss`, such as this site's URL")
	case path == h.LogoutPath, path == h.ResourceMetadata,
		h.ResourceMetadata == resourceMetadataDefault && strings.HasPrefix(path, wellKnownResource):
		return errors.New("assertion: jwks_path is the path of something else, too; give each a path of its own")
	}
	others := []string{h.tenantHeader()}
	for _, header := range h.Headers {
		others = append(others, header.Name)
	}
	for _, other := range others {
		if string(fold(nil, other)) == string(fold(nil, a.header())) {
			return fmt.Errorf("assertion: %s is also the name of another header; give each a name of its own", a.header())
		}
	}
	return nil
}

// assertions signs the identity of admitted members.
type assertions struct {
	signer  *assertion.Signer
	header  string // canonical
	path    string // on which the keys are served, exactly
	metrics *metrics
}

// signers lives across reloads, with the assertions it remembers.
var signers = shared.NewPool[*pooledSigner]()

type pooledSigner struct {
	*assertion.Signer
	issuer string
}

// Destruct implements [caddy.Destructor].
func (s *pooledSigner) Destruct() error {
	s.Close()
	return nil
}

// provisionAssertion reads the keys, and makes ready what signs with them.
func (h *Handler) provisionAssertion(repl *caddy.Replacer) error {
	a := h.Assertion
	if a == nil {
		return nil
	}
	issuer := a.Issuer
	if issuer == "" {
		issuer = h.Resource
	}
	config := assertion.Config{Algorithm: a.Algorithm, TTL: orDefault(a.TTL, assertion.DefaultTTL)}
	var err error
	if config.Issuer, err = repl.ReplaceOrErr(issuer, true, true); err != nil {
		return fmt.Errorf("assertion: issuer: %w", err)
	}
	if config.Audience, err = expandAll(repl, a.Audiences); err != nil {
		return fmt.Errorf("assertion: audience: %w", err)
	}
	var ids []string // which stand for the keys: they are digests of their public halves
	for i, text := range a.Keys {
		key, warning, err := readAssertionKey(repl, text)
		if err != nil {
			return fmt.Errorf("assertion: key %d: %w", i+1, err)
		}
		if warning != "" {
			h.logger.Warn("a key of assertions is not safe: " + warning)
		}
		config.Keys, ids = append(config.Keys, key), append(ids, fmt.Sprint(key.ID(), key.CanSign()))
	}
	settings := struct {
		Keys, Audience    []string
		Algorithm, Issuer string
		TTL               time.Duration
	}{ids, config.Audience, config.Algorithm, config.Issuer, config.TTL}
	pooled, release, err := signers.Acquire(settings, func() (*pooledSigner, error) {
		signer, err := assertion.New(config)
		if err != nil {
			return nil, err
		}
		return &pooledSigner{signer, config.Issuer}, nil
	})
	if err != nil {
		return fmt.Errorf("assertion: %w", err)
	}
	h.releases = append(h.releases, release)
	h.assertions = &assertions{pooled.Signer, textproto.CanonicalMIMEHeaderKey(a.header()), a.jwksPath(), h.metrics}
	return nil
}

// readAssertionKey reads the key that a line of the configuration stands for.
func readAssertionKey(repl *caddy.Replacer, configured string) (*assertion.Key, string, error) {
	expanded, err := repl.ReplaceOrErr(configured, true, true)
	if err != nil {
		return nil, "", err
	}
	if strings.Contains(expanded, "-----BEGIN ") {
		key, err := assertion.ParseKey([]byte(expanded))
		return key, "", err
	}
	key, warning, err := assertion.ReadKey(expanded)
	if path, ok := errors.AsType[*fs.PathError](err); ok && expanded != configured {
		// what a variable holds may be a key after all, in another form
		err = fmt.Errorf("what it stands for is neither PEM nor the path of a file that can be read: %w", path.Err)
	}
	return key, warning, err
}

// isFor tells whether the request asks for the keys.
func (a *assertions) isFor(r *http.Request) bool {
	return a != nil && r.URL.Path == a.path
}

// serve answers a request for the keys. They are public, and upstreams show no
// token when they ask.
func (a *assertions) serve(w http.ResponseWriter, r *http.Request) (outcome, error) {
	return serveDocument(w, r, ownDocument{assertion.JWKSMediaType, assertionKeysAge, a.signer.KeySet(), outcomeAssertionKeys})
}

// of returns the header that asserts who the admitted member is, none if a is
// nil.
func (a *assertions) of(id *identity) (headerField, error) {
	if a == nil {
		return headerField{}, nil
	}
	claims := assertion.Claims{
		Subject: id.token.Subject, Tenant: id.tenant, MemberID: id.member.ID,
		TokenEnd: id.token.Expiry, MemberEnd: id.memberEnd,
	}
	if roles := id.member.Attribute(rolesAttribute); roles.IsList() || roles.Text() != "" {
		claims.Roles = roles.Strings()
	}
	text, reused, err := a.signer.Sign(claims)
	a.metrics.asserted(reused, err)
	return headerField{a.header, text}, err
}

// identify gives an admitted request its headers: all of them, or none and the
// outcome that refuses it.
func (h *Handler) identify(header http.Header, repl *caddy.Replacer, id *identity) outcome {
	if id.outcome != outcomeMember {
		if h.headers.status {
			header[headerAuthStatus] = []string{authStatusAnonymous}
		}
		return ""
	}
	asserted, err := h.assertions.of(id)
	if err != nil {
		return h.noAssertion(id, err)
	}
	if size := h.setMember(header, repl, id, asserted); size > maxIdentitySize {
		return h.tooLarge(id, zap.Int("bytes", size), zap.Int("limit", maxIdentitySize))
	}
	return ""
}

// noAssertion tells how a request is refused for which there is no assertion.
func (h *Handler) noAssertion(id *identity, err error) outcome {
	if errors.Is(err, assertion.ErrTooLarge) {
		return h.tooLarge(id, zap.Error(err))
	}
	h.mistakes.noteIdentity(outcomeAssertionFailed, id, zap.Error(err))
	return outcomeAssertionFailed
}

func (h *Handler) tooLarge(id *identity, why ...zap.Field) outcome {
	h.mistakes.noteIdentity(outcomeIdentityTooLarge, id, why...)
	return outcomeIdentityTooLarge
}

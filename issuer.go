package keycloakcacheauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/origin"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/shared"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/tlsidentity"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
)

// Issuer is a Keycloak realm whose access tokens are accepted.
type Issuer struct {
	// The realm's issuer URL, exactly as tokens carry it in `iss`, e.g.
	// `https://sso.example.com/realms/main`. It is compared byte for byte.
	// Required. Global placeholders such as `{env.KEYCLOAK_ISSUER}` are
	// expanded when the configuration is loaded.
	//
	// With `{tenant}` as a whole segment of its path it stands for one realm per
	// tenant, e.g. `https://sso.example.com/realms/{tenant}`: tokens of a realm
	// are good for the tenant of that name only. `jwks_url` and
	// `backchannel_url` then have `{tenant}` in them, too.
	URL string `json:"url,omitempty"`

	// The tenants that tokens of this issuer are good for. Default: any.
	Tenants []string `json:"tenants,omitempty"`

	// Where the realm's signing keys are. By default the URL is taken from the
	// realm's discovery document, `<issuer>/.well-known/openid-configuration`.
	JWKSURL string `json:"jwks_url,omitempty"`

	// The base URL of the realm as this server reaches it, if that is not the
	// issuer's, e.g. `http://keycloak:8080/realms/main`. The discovery document
	// is read from there. It must still name the issuer above; scheme, host
	// and port of the key set's address in it are replaced by this URL's.
	BackchannelURL string `json:"backchannel_url,omitempty"`

	// The certificate authorities that Keycloak's certificate is checked
	// against, as a Caddy `tls.ca_pool.source` module. Default: the system's.
	TrustPoolRaw json.RawMessage `json:"trust_pool,omitempty" caddy:"namespace=tls.ca_pool.source inline_key=provider"`

	// A certificate, and below its key, with which this server shows who it is
	// to Keycloak (mutual TLS): paths of PEM files. Both or none.
	ClientCertificateFile string `json:"client_certificate_file,omitempty"`

	// The path of the client certificate's private key, a PEM file.
	ClientKeyFile string `json:"client_key_file,omitempty"`

	// Allows plain `http://` to hosts other than loopback. Whoever can change
	// the traffic to Keycloak can then make keys, and so tokens, of their own.
	InsecureHTTP bool `json:"insecure_http,omitempty"`

	// Has Keycloak asked about tokens that do not say enough by themselves. Not
	// for an issuer with `{tenant}`. Default: such tokens are refused.
	Introspect *Introspect `json:"introspect,omitempty"`
}

// keyFetchTimeout bounds one request to Keycloak.
const keyFetchTimeout = 5 * time.Second

// keySets holds the key sets of all configurations, so that a reload with
// unchanged settings keeps the keys.
var keySets = shared.NewPool[*keySet]()

// keySet is a realm's keys and the client that fetches them.
type keySet struct {
	*token.KeySet
	transport *http.Transport
}

// Destruct implements [caddy.Destructor].
func (k *keySet) Destruct() error {
	k.Close()
	k.transport.CloseIdleConnections()
	return nil
}

// expand replaces the global placeholders of the issuer's settings. The
// configuration itself stays as it is, for it is shown to whoever may see it.
func (i Issuer) expand(repl *caddy.Replacer) (Issuer, error) {
	for _, setting := range []struct {
		name  string
		value *string
	}{
		{"issuer", &i.URL},
		{"jwks_url", &i.JWKSURL},
		{"backchannel_url", &i.BackchannelURL},
		{"client_certificate", &i.ClientCertificateFile},
		{"client_certificate", &i.ClientKeyFile},
	} {
		expanded, err := repl.ReplaceOrErr(hideTenant(*setting.value), true, true)
		if err != nil {
			return Issuer{}, fmt.Errorf("%s: %w", setting.name, err)
		}
		*setting.value = strings.ReplaceAll(expanded, tenantStandIn, token.Placeholder)
	}
	if i.Introspect != nil {
		introspect, err := i.Introspect.expand(repl, i.InsecureHTTP)
		if err != nil {
			return Issuer{}, err
		}
		i.Introspect = &introspect
	}
	return i, nil
}

// check tells what is wrong with the settings, once they are expanded.
func (i Issuer) check() error {
	if i.URL == "" {
		return errors.New("issuer: the realm's URL is missing; give it as tokens carry it in `iss`, such as https://sso.example.com/realms/main")
	}
	for _, setting := range []struct{ name, url string }{
		{"issuer", i.URL}, {"jwks_url", i.JWKSURL}, {"backchannel_url", i.BackchannelURL},
	} {
		if setting.url == "" {
			continue
		}
		if err := checkURL(strings.ReplaceAll(setting.url, token.Placeholder, "t"), i.InsecureHTTP); err != nil {
			return fmt.Errorf("%s: %w", setting.name, err)
		}
		if i.isTemplate() != strings.Contains(setting.url, token.Placeholder) {
			return fmt.Errorf("%s: issuer and %[1]s must both contain {tenant}, or neither", setting.name)
		}
		if i.isTemplate() {
			if _, err := token.ParseTemplate(setting.url); err != nil {
				return fmt.Errorf("%s: the URL %w", setting.name, err)
			}
		}
	}
	if i.Introspect != nil && i.isTemplate() {
		return errors.New("introspect: each realm has clients of its own, so it does not go with {tenant}; give the issuers one by one, or have no lightweight tokens")
	}
	if i.Introspect != nil && i.JWKSURL != "" && i.Introspect.URL == "" {
		return errors.New("introspect: with jwks_url nothing is discovered; give introspect the endpoint's url")
	}
	if i.JWKSURL != "" && i.BackchannelURL != "" {
		return errors.New("jwks_url and backchannel_url exclude each other: with jwks_url nothing is discovered")
	}
	if (i.ClientCertificateFile == "") != (i.ClientKeyFile == "") {
		return errors.New("client_certificate needs two arguments: the certificate's file and its key's")
	}
	return nil
}

// checkURL tells why nothing should be fetched from a URL. It does not repeat
// the URL, which may hold a password.
func checkURL(text string, insecureHTTP bool) error {
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Host == "", u.Scheme != "https" && u.Scheme != "http":
		return errors.New("not an absolute https:// URL; give one such as https://sso.example.com/realms/main")
	case u.User != nil:
		return errors.New("the URL holds a user name or password; leave them out")
	case u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return errors.New("the URL has a query or a fragment; leave them out")
	case u.Scheme == "http" && !insecureHTTP && !origin.IsLoopback(u):
		return errors.New("http:// is only accepted for loopback addresses; use https://, or add insecure_http if the network is trusted")
	default:
		return nil
	}
}

// tenantStandIn takes the place of {tenant} while other placeholders are
// expanded. No configuration can hold it.
const tenantStandIn = "\x00tenant\x00"

func hideTenant(text string) string {
	return strings.ReplaceAll(text, token.Placeholder, tenantStandIn)
}

// newVerifier returns what verifies the issuer's tokens under the policy, and a
// function that gives its keys back. Nothing is fetched yet. The settings are
// expanded. Of a template's realms those are known whose tenant is allowed.
func (i Issuer) newVerifier(ctx caddy.Context, policy token.Config, allowed func(string) bool) (token.Issuer, func() error, error) {
	way, err := i.newWay(ctx)
	if err != nil {
		return nil, nil, err
	}
	if i.isTemplate() {
		realms, release, err := realmSets.Acquire(way, func() (*realmSet, error) { return newRealmSet(way) })
		if err != nil {
			return nil, nil, err
		}
		verifier, err := token.NewForRealms(policy, realms.Realms, allowed)
		if err != nil {
			return nil, nil, errors.Join(err, release())
		}
		return verifier, release, nil
	}
	keys, release, err := keySets.Acquire(way, func() (*keySet, error) { return newKeySet(way) })
	if err != nil {
		return nil, nil, err
	}
	policy.Issuer, policy.Keys = i.URL, keys.KeySet
	if i.Introspect != nil {
		asked, releaseAsked, err := acquireIntrospection(way, *i.Introspect)
		if err != nil {
			return nil, nil, errors.Join(err, release())
		}
		policy.Introspection = asked.Introspection
		releaseKeys := release
		release = func() error { return errors.Join(releaseAsked(), releaseKeys()) }
	}
	verifier, err := token.New(policy)
	if err != nil {
		return nil, nil, errors.Join(err, release())
	}
	return verifier, release, nil
}

// way is how this server reaches an issuer: all that makes one set of keys
// different from another.
type way struct {
	URL, JWKSURL, BackchannelURL string
	InsecureHTTP                 bool
	Identity                     tlsidentity.Identity
}

func (i Issuer) newWay(ctx caddy.Context) (way, error) {
	identity, err := tlsidentity.New(ctx, &i, i.TrustPoolRaw, i.ClientCertificateFile, i.ClientKeyFile)
	return way{
		URL: i.URL, JWKSURL: i.JWKSURL, BackchannelURL: i.BackchannelURL, InsecureHTTP: i.InsecureHTTP,
		Identity: identity,
	}, err
}

func (w way) newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: keyFetchTimeout}).DialContext,
		TLSClientConfig:       w.Identity.Config(),
		TLSHandshakeTimeout:   keyFetchTimeout,
		ResponseHeaderTimeout: keyFetchTimeout,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   2,
		IdleConnTimeout:       time.Minute,
	}
}

func newKeySet(w way) (*keySet, error) {
	transport := w.newTransport()
	keys, err := token.NewKeySet(token.KeySetConfig{
		Issuer:         w.URL,
		JWKSURL:        w.JWKSURL,
		BackchannelURL: w.BackchannelURL,
		Client:         &http.Client{Transport: transport},
		Timeout:        keyFetchTimeout,
	})
	if err != nil {
		return nil, err
	}
	return &keySet{KeySet: keys, transport: transport}, nil
}

// realmSets holds the realms of templates of all configurations.
var realmSets = shared.NewPool[*realmSet]()

// realmSet is a template's realms and the client that fetches their keys.
type realmSet struct {
	*token.Realms
	transport *http.Transport
}

// Destruct implements [caddy.Destructor].
func (r *realmSet) Destruct() error {
	r.Close()
	r.transport.CloseIdleConnections()
	return nil
}

func newRealmSet(w way) (*realmSet, error) {
	transport := w.newTransport()
	client := &http.Client{Transport: transport}
	realms, err := token.NewRealms(token.RealmsConfig{
		Issuer:         w.URL,
		JWKSURL:        w.JWKSURL,
		BackchannelURL: w.BackchannelURL,
		Keys: func(_ string, addresses token.KeySetConfig) (*token.KeySet, func(), error) {
			addresses.Client, addresses.Timeout = client, keyFetchTimeout
			keys, err := token.NewKeySet(addresses)
			if err != nil {
				return nil, nil, err
			}
			return keys, keys.Close, nil
		},
	})
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	return &realmSet{Realms: realms, transport: transport}, nil
}

// hasPlaceholder tells whether the settings can only be checked once they are
// expanded.
func (i Issuer) hasPlaceholder() bool {
	return hasPlaceholder(hideTenant(i.URL)) || hasPlaceholder(hideTenant(i.JWKSURL)) || hasPlaceholder(hideTenant(i.BackchannelURL))
}

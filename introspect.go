package keycloakcacheauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/introspect"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/shared"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/tlsidentity"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
)

// Introspect has Keycloak itself asked about tokens that do not say enough
// (RFC 7662): lightweight access tokens, which lack `sub` or `aud`, and tokens
// that are no JWT.
type Introspect struct {
	// The client that asks: a confidential client of the realm. Required.
	ClientID string `json:"client_id,omitempty"`

	// The client's secret. Give it as a global placeholder, such as
	// `{env.KEYCLOAK_SECRET}`. Either this or `private_key_file` is required.
	ClientSecret string `json:"client_secret,omitempty"`

	// How the client shows who it is: `client_secret_basic` (the default),
	// `client_secret_post` or, which is implied by a private key,
	// `private_key_jwt`.
	AuthMethod string `json:"auth_method,omitempty"`

	// The path of a PEM file with the private key that signs the client's
	// assertions (RFC 7523): RSA, of at least 2048 bits, EC or Ed25519. Read when
	// the configuration is loaded.
	PrivateKeyFile string `json:"private_key_file,omitempty"`

	// The id under which Keycloak knows that key. Default: none; Keycloak then
	// takes the client's only key.
	KeyID string `json:"key_id,omitempty"`

	// The introspection endpoint. Default: the one of the discovery document.
	URL string `json:"url,omitempty"`

	// The most time that asking may take. Default: 2s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// How long an answer is remembered, at most: so long may a token be good
	// that Keycloak has revoked meanwhile. Default: 60s.
	Life caddy.Duration `json:"life,omitempty"`
}

// Defaults and bounds of introspection.
const (
	defaultIntrospectTimeout = 2 * time.Second
	defaultIntrospectLife    = time.Minute
	maxIntrospectTimeout     = 30 * time.Second
	maxIntrospectLife        = time.Hour

	authSecretBasic = "client_secret_basic"
	authSecretPost  = "client_secret_post"
	authPrivateKey  = "private_key_jwt"
)

// method is how the client shows who it is.
func (i Introspect) method() string {
	switch {
	case i.AuthMethod != "":
		return i.AuthMethod
	case i.PrivateKeyFile != "":
		return authPrivateKey
	default:
		return authSecretBasic
	}
}

// check tells what is wrong with the settings, expanded or not.
func (i Introspect) check() error {
	switch method := i.method(); {
	case i.ClientID == "":
		return errors.New("introspect: client_id is missing; give the id of a confidential client of the realm")
	case i.ClientSecret == "" && i.PrivateKeyFile == "":
		return errors.New("introspect: client_secret is missing; give it, such as {env.KEYCLOAK_SECRET}, or a private_key")
	case i.ClientSecret != "" && i.PrivateKeyFile != "":
		return errors.New("introspect: client_secret and private_key exclude each other; keep one of the two")
	case method != authSecretBasic && method != authSecretPost && method != authPrivateKey:
		return fmt.Errorf("introspect: auth_method is %s, %s or %s", authSecretBasic, authSecretPost, authPrivateKey)
	case (method == authPrivateKey) != (i.PrivateKeyFile != ""):
		return fmt.Errorf("introspect: auth_method %s goes with private_key, the others with client_secret", authPrivateKey)
	case i.KeyID != "" && i.PrivateKeyFile == "":
		return errors.New("introspect: key_id goes with private_key; remove one, or add the other")
	case i.Timeout < 0 || time.Duration(i.Timeout) > maxIntrospectTimeout:
		return fmt.Errorf("introspect: timeout %s is negative or more than %s", time.Duration(i.Timeout), maxIntrospectTimeout)
	case i.Life < 0 || time.Duration(i.Life) > maxIntrospectLife:
		return fmt.Errorf("introspect: life %s is negative or more than %s", time.Duration(i.Life), maxIntrospectLife)
	}
	return nil
}

// checkUnexpanded checks the settings as far as can be before their
// placeholders are expanded.
func (i Introspect) checkUnexpanded(insecureHTTP bool) error {
	for _, setting := range i.expandable() {
		if err := checkGlobalPlaceholders(*setting.value); err != nil {
			return fmt.Errorf("introspect: %s: %w", setting.name, err)
		}
	}
	if i.URL != "" && !hasPlaceholder(i.URL) {
		if err := checkURL(i.URL, insecureHTTP); err != nil {
			return fmt.Errorf("introspect: url: %w", err)
		}
	}
	return i.check()
}

type setting struct {
	name  string
	value *string
}

func (i *Introspect) expandable() []setting {
	return []setting{
		{"client_id", &i.ClientID},
		{"client_secret", &i.ClientSecret},
		{"private_key", &i.PrivateKeyFile},
		{"key_id", &i.KeyID},
		{"url", &i.URL},
	}
}

// expand replaces the global placeholders of the settings, and checks what
// became of them.
func (i Introspect) expand(repl *caddy.Replacer, insecureHTTP bool) (Introspect, error) {
	for _, setting := range i.expandable() {
		expanded, err := repl.ReplaceOrErr(*setting.value, true, true)
		if err != nil {
			return Introspect{}, fmt.Errorf("introspect: %s: %w", setting.name, err)
		}
		*setting.value = expanded
	}
	if err := i.check(); err != nil {
		return Introspect{}, err
	}
	if i.URL != "" {
		if err := checkURL(i.URL, insecureHTTP); err != nil {
			return Introspect{}, fmt.Errorf("introspect: url: %w", err)
		}
	}
	return i, nil
}

// introspections hold the answers of all configurations' introspection
// endpoints. What is remembered was said by one endpoint to one client, and is
// believed by those who would ask the same one in the same way.
var introspections = shared.NewPool[*introspection]()

// introspection is one client of one introspection endpoint.
type introspection struct {
	*token.Introspection
	client    *introspect.Client
	transport *http.Transport
}

// Destruct implements [caddy.Destructor].
func (i *introspection) Destruct() error {
	i.Close()
	i.transport.CloseIdleConnections()
	return nil
}

// acquireIntrospection returns what asks about the issuer's tokens, and a
// function that gives it back. It does not connect. The settings are expanded.
func acquireIntrospection(w way, settings Introspect) (*introspection, func() error, error) {
	var privateKey []byte
	if settings.PrivateKeyFile != "" {
		var err error
		if privateKey, err = tlsidentity.ReadFile(settings.PrivateKeyFile); err != nil {
			return nil, nil, fmt.Errorf("introspect: private_key: %w", err)
		}
	}
	key := struct {
		Way        way
		Settings   Introspect
		PrivateKey []byte
	}{w, settings, privateKey}
	return introspections.Acquire(key, func() (*introspection, error) {
		i := &introspection{transport: w.newTransport()}
		var err error
		i.client, err = introspect.New(introspect.Config{
			Issuer:         w.URL,
			BackchannelURL: w.BackchannelURL,
			Endpoint:       settings.URL,
			ClientID:       settings.ClientID,
			ClientSecret:   settings.ClientSecret,
			SecretInBody:   settings.method() == authSecretPost,
			PrivateKey:     string(privateKey),
			KeyID:          settings.KeyID,
			Client:         &http.Client{Transport: i.transport},
			Timeout:        orDefault(settings.Timeout, defaultIntrospectTimeout),
		})
		if err != nil {
			return nil, fmt.Errorf("introspect: %w", err)
		}
		i.Introspection, err = token.NewIntrospection(token.IntrospectionConfig{
			Issuer:       w.URL,
			Introspector: introspector{i.client},
			Life:         orDefault(settings.Life, defaultIntrospectLife),
			Timeout:      orDefault(settings.Timeout, defaultIntrospectTimeout) + time.Second,
		})
		return i, err
	})
}

// introspector lets [token.Introspection] ask, and tells the configuration
// whose request made it ask.
type introspector struct{ client *introspect.Client }

// Introspect implements [token.Introspector].
func (i introspector) Introspect(ctx context.Context, raw string) ([]byte, error) {
	observer, _ := ctx.Value(introspectObserverKey{}).(introspectObserver)
	claims, err := i.client.Observed(observer.called).Introspect(ctx, raw)
	if errors.Is(err, introspect.ErrInactive) {
		return nil, token.ErrInactive
	}
	return claims, err
}

// introspectObserver carries what a shared client sees to the configuration
// whose request made it ask: its metrics and its log.
type introspectObserver struct {
	metrics *metrics
	logger  *zap.Logger
}

type introspectObserverKey struct{}

// observe puts the observer into the context of a request.
func (o introspectObserver) observe(ctx context.Context) context.Context {
	return context.WithValue(ctx, introspectObserverKey{}, o)
}

// called records one question: a line per change of state.
func (o introspectObserver) called(call introspect.Call) {
	if o.metrics == nil {
		return
	}
	result := introspectionActive
	switch {
	case errors.Is(call.Err, introspect.ErrInactive):
		result = introspectionInactive
	case call.Err != nil:
		result = introspectionError
	}
	o.metrics.introspected(result, call.Took)
	switch {
	case !call.Changed:
	case result == introspectionError:
		o.logger.Error("tokens cannot be introspected; those that have to be get 503 until they can",
			zap.String("issuer", call.Issuer), zap.Error(call.Err))
	default:
		o.logger.Info("tokens are introspected again", zap.String("issuer", call.Issuer))
	}
}

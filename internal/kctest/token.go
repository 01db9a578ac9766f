package kctest

import (
	"slices"
	"strings"
	"time"
)

// Option changes a token before it is signed.
type Option func(*draft)

// draft is a token in the making.
type draft struct {
	claims map[string]any
	alg    string
	key    *Key                   // nil: the realm's for alg
	header []func(map[string]any) // changes, made once it is known who signs
}

// Claim sets a claim, nil meaning null.
func Claim(name string, value any) Option { return func(d *draft) { d.claims[name] = value } }

// Without drops claims.
func Without(names ...string) Option {
	return func(d *draft) {
		for _, name := range names {
			delete(d.claims, name)
		}
	}
}

// Header sets a parameter of the header, nil meaning null. What signs stays as it is.
func Header(name string, value any) Option {
	return func(d *draft) {
		d.header = append(d.header, func(header map[string]any) { header[name] = value })
	}
}

// WithoutHeader drops parameters of the header.
func WithoutHeader(names ...string) Option {
	return func(d *draft) {
		d.header = append(d.header, func(header map[string]any) {
			for _, name := range names {
				delete(header, name)
			}
		})
	}
}

// Algorithm signs with alg, by the realm's key for it.
func Algorithm(alg string) Option { return func(d *draft) { d.alg = alg } }

// SignedBy signs with that key, whosever it is, and its algorithm and id.
func SignedBy(k *Key) Option { return func(d *draft) { d.key, d.alg = k, k.Algorithm } }

// ForClient makes it a token of that client of the realm: its azp and audience.
func ForClient(c Client) Option {
	return func(d *draft) {
		d.claims["azp"] = c.ID
		d.claims["aud"] = audienceOf(c)
	}
}

// IssuedAt moves iat, and exp by as much.
func IssuedAt(at time.Time) Option {
	return func(d *draft) {
		iat, _ := d.claims["iat"].(int64)
		d.claims["iat"] = at.Unix()
		if exp, ok := d.claims["exp"].(int64); ok {
			d.claims["exp"] = exp - iat + at.Unix()
		}
	}
}

// AccessToken returns an access token for u, of client "app" unless an option says
// otherwise.
func (r *Realm) AccessToken(u User, options ...Option) string {
	claims := r.common(u, "Bearer", "onrtro:"+newUUID())
	claims["azp"] = "app"
	claims["aud"] = "account"
	claims["acr"] = "1"
	claims["allowed-origins"] = []string{"http://localhost"}
	claims["realm_access"] = map[string]any{
		"roles": append([]string{"offline_access", "uma_authorization", "default-roles-" + r.name}, u.RealmRoles...),
	}
	access := map[string]any{"account": rolesOf("manage-account", "manage-account-links", "view-profile")}
	for client, roles := range u.ClientRoles {
		access[client] = rolesOf(roles...)
	}
	claims["resource_access"] = access
	claims["scope"] = "openid email profile"
	addProfile(claims, u)
	if len(u.Groups) > 0 {
		claims["groups"] = u.Groups
	}
	if len(u.Organizations) > 0 {
		claims["organization"] = u.Organizations
	}
	return r.sign(claims, "JWT", options)
}

// IDToken returns an ID token for u. Like Keycloak's it has the header, key and user
// of an access token.
func (r *Realm) IDToken(u User, options ...Option) string {
	claims := r.common(u, "ID", newUUID())
	claims["azp"], claims["aud"], claims["acr"] = "app", "app", "1"
	claims["at_hash"] = "jPQAhqJ_HM526TDn1Mv47Q"
	addProfile(claims, u)
	return r.sign(claims, "JWT", options)
}

// RefreshToken returns a refresh token for u, signed by a secret nobody publishes.
func (r *Realm) RefreshToken(u User, options ...Option) string {
	claims := r.common(u, "Refresh", newUUID())
	claims["azp"], claims["aud"] = "app", r.Issuer()
	claims["scope"] = "openid web-origins email basic roles profile acr"
	return r.sign(claims, "JWT", append([]Option{SignedBy(newKey("HS512"))}, options...))
}

// LogoutToken returns a back-channel logout token (OpenID Connect Back-Channel Logout
// 1.0 §2.4) for client "app", u and a session.
func (r *Realm) LogoutToken(u User, session string, options ...Option) string {
	claims := r.common(u, "Logout", newUUID())
	iat, _ := claims["iat"].(int64)
	claims["exp"] = iat + 120
	claims["aud"], claims["sid"] = "app", session
	claims["events"] = map[string]any{
		"http://schemas.openid.net/event/backchannel-logout": map[string]any{},
	}
	return r.sign(claims, "logout+jwt", options)
}

// common are the claims all of Keycloak's tokens have.
func (r *Realm) common(u User, kind, id string) map[string]any {
	r.mu.Lock()
	lifespan := r.lifespan
	r.mu.Unlock()
	now := r.server.clock()
	return map[string]any{
		"iss": r.Issuer(),
		"sub": u.ID,
		"typ": kind,
		"jti": id,
		"sid": newUUID(),
		"iat": now.Unix(),
		"exp": now.Add(lifespan).Unix(),
	}
}

func (r *Realm) sign(claims map[string]any, typ string, options []Option) string {
	r.mu.Lock()
	d := &draft{claims: claims, alg: r.alg}
	r.mu.Unlock()
	for _, option := range options {
		option(d)
	}
	key := d.key
	if key == nil {
		key = r.ActiveKey(d.alg)
	}
	header := map[string]any{"alg": d.alg, "kid": key.ID, "typ": typ}
	for _, change := range d.header {
		change(header)
	}
	return key.Sign(d.alg, encodeJSON(header), encodeJSON(d.claims))
}

func addProfile(claims map[string]any, u User) {
	claims["email_verified"] = u.EmailVerified
	claims["preferred_username"] = u.Username
	for name, value := range map[string]string{
		"name":        strings.TrimSpace(u.GivenName + " " + u.FamilyName),
		"given_name":  u.GivenName,
		"family_name": u.FamilyName,
		"email":       u.Email,
	} {
		if value != "" {
			claims[name] = value
		}
	}
}

func rolesOf(names ...string) map[string]any { return map[string]any{"roles": names} }

// audienceOf is a string if it is one, as Keycloak writes it.
func audienceOf(c Client) any {
	if len(c.Audience) == 0 {
		return "account"
	}
	return append(slices.Clone(c.Audience), "account")
}

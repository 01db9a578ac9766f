package servers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
)

// KeycloakRealm is one realm of a Keycloak.
type KeycloakRealm struct {
	Name  string
	admin *KeycloakAdmin
}

// KeycloakUser is what CreateUser needs to know. Keycloak lets nobody log in
// whose profile is incomplete, so what is left empty is made up from Username.
type KeycloakUser struct {
	Username        string
	Password        string
	Email           string
	EmailUnverified bool
	FirstName       string
	LastName        string
	Attributes      map[string][]string
	RealmRoles      []string // made where they do not exist
	Disabled        bool
}

// KeycloakClient is what CreateClient needs to know.
type KeycloakClient struct {
	ID     string
	Secret string // empty makes a public client

	// Audiences are put into `aud` of its access tokens by a mapper each.
	Audiences []string

	// SigningAlgorithm of its access tokens; empty is the realm's default,
	// RS256. The realm needs a key for any other: see AddKey.
	SigningAlgorithm string

	// ServiceAccount allows the client credentials grant.
	ServiceAccount bool

	// Attributes are Keycloak's own switches, such as
	// "access.token.header.type.rfc9068".
	Attributes map[string]string
}

// KeycloakTokens is an answer of a token endpoint.
type KeycloakTokens struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	IDToken      string `json:"id_token"`
	ExpiresIn    int    `json:"expires_in"` // seconds
}

// Issuer is the realm's `iss`.
func (r *KeycloakRealm) Issuer() string { return r.admin.URL + "/realms/" + url.PathEscape(r.Name) }

// Call is KeycloakAdmin.Call with a path below the realm's own.
func (r *KeycloakRealm) Call(ctx context.Context, method, path string, in, out any) error {
	return r.admin.Call(ctx, method, r.at(path), in, out)
}

func (r *KeycloakRealm) at(path string) string { return "/" + url.PathEscape(r.Name) + path }

// Delete removes the realm and all that is in it.
func (r *KeycloakRealm) Delete(ctx context.Context) error {
	return r.Call(ctx, http.MethodDelete, "", nil, nil)
}

// CreateUser makes a user and returns the id, the `sub` of the user's tokens.
func (r *KeycloakRealm) CreateUser(ctx context.Context, u KeycloakUser) (id string, err error) {
	or := func(value, otherwise string) string {
		if value == "" {
			return otherwise
		}
		return value
	}
	id, err = r.admin.create(ctx, r.at("/users"), map[string]any{
		"username":      u.Username,
		"enabled":       !u.Disabled,
		"email":         or(u.Email, u.Username+"@example.com"),
		"emailVerified": !u.EmailUnverified,
		"firstName":     or(u.FirstName, u.Username),
		"lastName":      or(u.LastName, "Example"),
		"attributes":    u.Attributes,
		"credentials":   []map[string]any{{"type": "password", "value": u.Password, "temporary": false}},
	})
	if err != nil {
		return "", err
	}
	return id, r.AssignRealmRoles(ctx, id, u.RealmRoles...)
}

// DeleteUser removes a user. Tokens that exist stay valid until they expire.
func (r *KeycloakRealm) DeleteUser(ctx context.Context, id string) error {
	return r.Call(ctx, http.MethodDelete, "/users/"+id, nil, nil)
}

// Logout ends all sessions of a user; clients with a back-channel logout URL
// are told.
func (r *KeycloakRealm) Logout(ctx context.Context, userID string) error {
	return r.Call(ctx, http.MethodPost, "/users/"+userID+"/logout", nil, nil)
}

// AssignRealmRoles gives a user roles, which are made where they do not exist.
func (r *KeycloakRealm) AssignRealmRoles(ctx context.Context, userID string, names ...string) error {
	var roles []map[string]any
	for _, name := range names {
		err := r.Call(ctx, http.MethodPost, "/roles", map[string]any{"name": name}, nil)
		var status *KeycloakError
		if err != nil && (!errors.As(err, &status) || status.Status != http.StatusConflict) {
			return err
		}
		var role map[string]any
		if err := r.Call(ctx, http.MethodGet, "/roles/"+url.PathEscape(name), nil, &role); err != nil {
			return err
		}
		roles = append(roles, role)
	}
	if len(roles) == 0 {
		return nil
	}
	return r.Call(ctx, http.MethodPost, "/users/"+userID+"/role-mappings/realm", roles, nil)
}

// CreateClient makes a client that may use the password grant.
func (r *KeycloakRealm) CreateClient(ctx context.Context, c KeycloakClient) error {
	attributes := map[string]string{}
	maps.Copy(attributes, c.Attributes)
	if c.SigningAlgorithm != "" {
		attributes["access.token.signed.response.alg"] = c.SigningAlgorithm
	}
	mappers := make([]map[string]any, 0, len(c.Audiences))
	for _, audience := range c.Audiences {
		mappers = append(mappers, map[string]any{
			"name": "audience " + audience, "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
			"config": map[string]string{"included.custom.audience": audience, "access.token.claim": "true", "id.token.claim": "false"},
		})
	}
	representation := map[string]any{
		"clientId": c.ID, "enabled": true, "protocol": "openid-connect", "publicClient": c.Secret == "",
		"directAccessGrantsEnabled": true, "standardFlowEnabled": false, "serviceAccountsEnabled": c.ServiceAccount,
		"attributes": attributes, "protocolMappers": mappers,
	}
	if c.Secret != "" {
		representation["secret"] = c.Secret
	}
	_, err := r.admin.create(ctx, r.at("/clients"), representation)
	return err
}

// SetClientAttribute sets one of Keycloak's switches on a client, for example
// "access.token.signed.response.alg".
func (r *KeycloakRealm) SetClientAttribute(ctx context.Context, clientID, name, value string) error {
	var found []map[string]any
	if err := r.Call(ctx, http.MethodGet, "/clients?clientId="+url.QueryEscape(clientID), nil, &found); err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("keycloak: %d clients are called %s", len(found), clientID)
	}
	client := found[0]
	attributes, ok := client["attributes"].(map[string]any)
	if !ok {
		attributes = map[string]any{}
	}
	attributes[name] = value
	client["attributes"] = attributes
	return r.Call(ctx, http.MethodPut, fmt.Sprint("/clients/", client["id"]), client, nil)
}

// Tokens sends a form to the realm's token endpoint.
func (r *KeycloakRealm) Tokens(ctx context.Context, form url.Values) (*KeycloakTokens, error) {
	return r.admin.tokens(ctx, r.Name, form)
}

// PasswordTokens logs a user in with the password grant. Scopes are asked for
// besides `openid`.
func (r *KeycloakRealm) PasswordTokens(ctx context.Context, c KeycloakClient, username, password string, scopes ...string) (*KeycloakTokens, error) {
	scope := strings.Join(append([]string{"openid"}, scopes...), " ")
	form := url.Values{
		"grant_type": {"password"}, "client_id": {c.ID}, "username": {username}, "password": {password}, "scope": {scope},
	}
	if c.Secret != "" {
		form.Set("client_secret", c.Secret)
	}
	return r.Tokens(ctx, form)
}

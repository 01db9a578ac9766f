package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"
)

// KeycloakAdmin administers a Keycloak through its admin REST API
// (https://www.keycloak.org/docs-api/latest/rest-api/). It is safe for
// concurrent use.
type KeycloakAdmin struct {
	URL string // without a slash at its end

	username, password string
	client             *http.Client

	mu      sync.Mutex
	token   string
	expires time.Time
}

// KeycloakError is an answer of Keycloak other than 2xx.
type KeycloakError struct {
	Method, Path string
	Status       int
	Body         string // the first part of it
}

func (e *KeycloakError) Error() string {
	return fmt.Sprintf("keycloak: %s %s: status %d: %s", e.Method, e.Path, e.Status, e.Body)
}

// NewKeycloakAdmin returns a client for the Keycloak at that URL and the
// administrator of its realm master.
func NewKeycloakAdmin(url, username, password string) *KeycloakAdmin {
	return &KeycloakAdmin{
		URL: strings.TrimSuffix(url, "/"), username: username, password: password,
		client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: 5 * time.Second}},
	}
}

// AdminUser is the name of the administrator.
func (a *KeycloakAdmin) AdminUser() string { return a.username }

// AdminPassword is the password of the administrator.
func (a *KeycloakAdmin) AdminPassword() string { return a.password }

// Call sends one request to a path below /admin/realms with in as its JSON
// body, unless nil, and decodes the answer into out, unless nil.
func (a *KeycloakAdmin) Call(ctx context.Context, method, path string, in, out any) error {
	_, err := a.call(ctx, method, path, in, out)
	return err
}

// create is a POST that makes something. It returns the id that Keycloak gave
// it, the last segment of the answer's Location.
func (a *KeycloakAdmin) create(ctx context.Context, at string, in any) (id string, err error) {
	location, err := a.call(ctx, http.MethodPost, at, in, nil)
	return path.Base(location), err
}

func (a *KeycloakAdmin) call(ctx context.Context, method, path string, in, out any) (location string, err error) {
	var body []byte
	if in != nil {
		if body, err = json.Marshal(in); err != nil {
			return "", err
		}
	}
	location, err = a.send(ctx, method, path, body, out, false)
	var status *KeycloakError
	if errors.As(err, &status) && status.Status == http.StatusUnauthorized {
		// the token is from before a restart, or has run out
		location, err = a.send(ctx, method, path, body, out, true)
	}
	return location, err
}

func (a *KeycloakAdmin) send(ctx context.Context, method, path string, body []byte, out any, newToken bool) (location string, err error) {
	token, err := a.adminToken(ctx, newToken)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, method, a.URL+"/admin/realms"+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	return a.do(req, out)
}

// adminToken returns a token that is good for the next few seconds.
func (a *KeycloakAdmin) adminToken(ctx context.Context, renew bool) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !renew && time.Now().Before(a.expires) {
		return a.token, nil
	}
	tokens, err := a.tokens(ctx, "master", url.Values{
		"grant_type": {"password"}, "client_id": {"admin-cli"}, "username": {a.username}, "password": {a.password},
	})
	if err != nil {
		return "", err
	}
	const reserve = 20 * time.Second
	a.token, a.expires = tokens.AccessToken, time.Now().Add(time.Duration(tokens.ExpiresIn)*time.Second-reserve)
	return a.token, nil
}

// tokens asks a realm's token endpoint.
func (a *KeycloakAdmin) tokens(ctx context.Context, realm string, form url.Values) (*KeycloakTokens, error) {
	endpoint := a.URL + "/realms/" + url.PathEscape(realm) + "/protocol/openid-connect/token"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	tokens := new(KeycloakTokens)
	if _, err := a.do(req, tokens); err != nil {
		return nil, err
	}
	return tokens, nil
}

func (a *KeycloakAdmin) do(req *http.Request, out any) (location string, err error) {
	resp, err := a.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return "", err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return "", &KeycloakError{Method: req.Method, Path: req.URL.Path, Status: resp.StatusCode, Body: string(data[:min(len(data), 512)])}
	}
	if out != nil {
		if err := json.Unmarshal(data, out); err != nil {
			return "", fmt.Errorf("keycloak: %s %s: %w", req.Method, req.URL.Path, err)
		}
	}
	return resp.Header.Get("Location"), nil
}

// CreateRealm makes a realm. The settings are members of Keycloak's
// RealmRepresentation and win over the defaults: enabled, plain HTTP allowed,
// user attributes of any name allowed.
func (a *KeycloakAdmin) CreateRealm(ctx context.Context, name string, settings map[string]any) (*KeycloakRealm, error) {
	realm := map[string]any{"realm": name, "enabled": true, "sslRequired": "none"}
	maps.Copy(realm, settings)
	if err := a.Call(ctx, http.MethodPost, "", realm, nil); err != nil {
		return nil, err
	}
	r := a.Realm(name)
	var profile map[string]any
	if err := r.Call(ctx, http.MethodGet, "/users/profile", nil, &profile); err != nil {
		return nil, err
	}
	profile["unmanagedAttributePolicy"] = "ENABLED"
	return r, r.Call(ctx, http.MethodPut, "/users/profile", profile, nil)
}

// Realm returns a realm that exists already.
func (a *KeycloakAdmin) Realm(name string) *KeycloakRealm {
	return &KeycloakRealm{Name: name, admin: a}
}

//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

// setUpKeycloak makes realm, client and users in a real Keycloak, as far as they are
// not there yet from an earlier run.
func setUpKeycloak(ctx context.Context, base, administrator string) (*realm, error) {
	base = strings.TrimSuffix(base, "/")
	if u, err := url.Parse(base); err != nil || u.Host == "" || u.User != nil || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("-keycloak takes a URL such as http://localhost:8080; the password goes into -keycloak-admin")
	}
	name, password, ok := strings.Cut(administrator, ":")
	if !ok {
		return nil, errors.New("-keycloak-admin takes user:password")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	admin := servers.NewKeycloakAdmin(base, name, password)
	made, err := ensureRealm(ctx, admin)
	if err == nil {
		err = ensureClient(ctx, made)
	}
	ids := make(map[string]string)
	for _, user := range users {
		if err == nil {
			ids[user], err = ensureUser(ctx, made, user)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("setting up the realm %s: %w", realmName, err)
	}
	found, err := discover(ctx, base+"/realms/"+realmName)
	if err != nil {
		return nil, err
	}
	found.about = found.issuer + ", left there"
	found.ids = ids
	found.rotate = func(ctx context.Context) error {
		_, _, err := made.RotateKey(ctx, "RS256")
		return err
	}
	found.close = func() {}
	return found, nil
}

func ensureRealm(ctx context.Context, admin *servers.KeycloakAdmin) (*servers.KeycloakRealm, error) {
	known := admin.Realm(realmName)
	err := known.Call(ctx, http.MethodGet, "", nil, nil)
	var status *servers.KeycloakError
	if errors.As(err, &status) && status.Status == http.StatusNotFound {
		return admin.CreateRealm(ctx, realmName, nil)
	}
	return known, err
}

func ensureClient(ctx context.Context, r *servers.KeycloakRealm) error {
	var found []struct{}
	err := r.Call(ctx, http.MethodGet, "/clients?clientId="+clientID, nil, &found)
	if err != nil || len(found) > 0 {
		return err
	}
	return r.CreateClient(ctx, servers.KeycloakClient{ID: clientID, Audiences: []string{audience}})
}

// ensureUser returns the user's id.
func ensureUser(ctx context.Context, r *servers.KeycloakRealm, name string) (string, error) {
	var found []struct {
		ID string `json:"id"`
	}
	err := r.Call(ctx, http.MethodGet, "/users?exact=true&username="+name, nil, &found)
	switch {
	case err != nil:
		return "", err
	case len(found) > 0:
		return found[0].ID, nil
	default:
		return r.CreateUser(ctx, servers.KeycloakUser{Username: name, Password: name})
	}
}

// discover reads what a realm says of itself: behind a proxy, or with Keycloak's
// option `hostname`, its issuer is not the URL by which it is reached.
func discover(ctx context.Context, base string) (*realm, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/.well-known/openid-configuration", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("discovering the realm: %w", err)
	}
	defer resp.Body.Close()
	var document struct {
		Issuer        string `json:"issuer"`
		TokenEndpoint string `json:"token_endpoint"`
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("discovering the realm: status %d", resp.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&document); err != nil {
		return nil, fmt.Errorf("discovering the realm: %w", err)
	}
	return &realm{issuer: document.Issuer, base: base, tokenURL: document.TokenEndpoint}, nil
}

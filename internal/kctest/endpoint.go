package kctest

import (
	"encoding/json"
	"net/http"
	"time"
)

// Endpoint is a path below a realm's URL.
type Endpoint string

// The endpoints there are.
const (
	Discovery Endpoint = ".well-known/openid-configuration"
	Certs     Endpoint = "protocol/openid-connect/certs"
	Tokens    Endpoint = "protocol/openid-connect/token"
)

func (r *Realm) serve(w http.ResponseWriter, req *http.Request, path string) {
	endpoint := Endpoint(path)
	var answer http.HandlerFunc
	switch endpoint {
	case Discovery:
		answer = r.serveDiscovery
	case Certs:
		answer = r.serveCerts
	case Tokens:
		answer = r.serveTokens
	default:
		writeJSON(w, http.StatusNotFound, map[string]any{"error": "HTTP 404 Not Found"})
		return
	}
	r.mu.Lock()
	r.requests[endpoint]++
	fault := r.faults[endpoint]
	r.mu.Unlock()
	if fault != nil {
		fault(w, req, answer)
		return
	}
	answer(w, req)
}

func (r *Realm) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	issuer := r.Issuer()
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                issuer,
		"authorization_endpoint":                issuer + "/protocol/openid-connect/auth",
		"token_endpoint":                        issuer + "/" + string(Tokens),
		"introspection_endpoint":                issuer + "/protocol/openid-connect/token/introspect",
		"userinfo_endpoint":                     issuer + "/protocol/openid-connect/userinfo",
		"end_session_endpoint":                  issuer + "/protocol/openid-connect/logout",
		"jwks_uri":                              issuer + "/" + string(Certs),
		"grant_types_supported":                 []string{"password"},
		"response_types_supported":              []string{"code"},
		"subject_types_supported":               []string{"public", "pairwise"},
		"id_token_signing_alg_values_supported": []string{"RS256", "PS256", "ES256", "EdDSA"},
		"backchannel_logout_supported":          true,
		"backchannel_logout_session_supported":  true,
	})
}

func (r *Realm) serveCerts(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	published := []map[string]any{} // not null, should all be disabled
	for _, k := range r.allKeys() {
		if jwk := k.JWK(); jwk != nil && !k.disabled {
			published = append(published, jwk)
		}
	}
	r.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"keys": published})
}

// serveTokens grants tokens for user name and password (RFC 6749 §4.3).
func (r *Realm) serveTokens(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		writeError(w, http.StatusMethodNotAllowed, "invalid_request", "HTTP 405 Method Not Allowed")
		return
	}
	req.Body = http.MaxBytesReader(w, req.Body, 64<<10)
	if err := req.ParseForm(); err != nil {
		writeError(w, http.StatusBadRequest, "invalid_request", "Malformed form")
		return
	}
	form := req.PostForm
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if name, password, ok := req.BasicAuth(); ok {
		id, secret = name, password
	}
	r.mu.Lock()
	client, knownClient := r.clients[id]
	user, knownUser := r.users[form.Get("username")]
	lifespan := r.lifespan
	r.mu.Unlock()
	switch {
	case !knownClient || client.Secret != secret:
		writeError(w, http.StatusUnauthorized, "invalid_client", "Invalid client or Invalid client credentials")
		return
	case form.Get("grant_type") != "password":
		writeError(w, http.StatusBadRequest, "unsupported_grant_type", "Unsupported grant_type")
		return
	case !knownUser || user.Password != form.Get("password"):
		writeError(w, http.StatusUnauthorized, "invalid_grant", "Invalid user credentials")
		return
	}
	session := newUUID()
	sameSession := Claim("sid", session)
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token":       r.AccessToken(user, ForClient(client), sameSession),
		"expires_in":         int(lifespan / time.Second),
		"refresh_expires_in": 1800,
		"refresh_token":      r.RefreshToken(user, Claim("azp", client.ID), sameSession),
		"id_token":           r.IDToken(user, Claim("azp", client.ID), Claim("aud", client.ID), sameSession),
		"token_type":         "Bearer",
		"not-before-policy":  0,
		"session_state":      session,
		"scope":              "openid email profile",
	})
}

func writeError(w http.ResponseWriter, status int, code, description string) {
	writeJSON(w, status, map[string]any{"error": code, "error_description": description})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client's loss if it has gone
}

package keycloakresolver

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/clientauth"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/internal/remote"
)

const (
	// reserve is how long before its end a token is renewed, or a tenth of its
	// life, if that is less.
	reserve = 20 * time.Second

	// maxTokenAnswer bounds the token endpoint's answer, in bytes.
	maxTokenAnswer = 64 << 10

	// retryPause is how long a refusal of the token endpoint is taken for its answer
	// to all who ask.
	retryPause = time.Second
)

// token is the client's access token.
type token struct {
	text  string
	until time.Time // when to get another
}

// subject returns the token's sub: whose it is.
func (t token) subject() (string, error) {
	var claims struct {
		Subject string `json:"sub"`
	}
	parts := strings.Split(t.text, ".")
	if len(parts) == 3 {
		text, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err == nil && remote.Decode(text, &claims) == nil && isID(claims.Subject) {
			return claims.Subject, nil
		}
	}
	return "", errors.New("the client's own token does not say whose it is: give the client the client scope basic, and no lightweight access tokens")
}

// tokens gets the client's token when there is need of one, for all who wait for it
// at a time.
type tokens struct {
	endpoint    string
	credentials clientauth.Credentials
	do          func(*http.Request) (*http.Response, error)
	now         func() time.Time

	asking chan struct{} // has an element while somebody asks

	mu     sync.Mutex
	known  token
	failed error     // of the last time
	until  time.Time // until when failed is everybody's answer
}

// get returns a token that is good for a while.
func (t *tokens) get(ctx context.Context) (token, error) {
	if known, done, err := t.state(); done {
		return known, err
	}
	select {
	case t.asking <- struct{}{}:
		defer func() { <-t.asking }()
	case <-ctx.Done():
		return token{}, fmt.Errorf("waiting for a token: %w", ctx.Err())
	}
	if known, done, err := t.state(); done { // somebody asked meanwhile
		return known, err
	}
	known, err := t.fetch(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		t.known, t.failed = known, nil
	case ctx.Err() == nil: // what one caller had no time for, others may have
		t.failed, t.until = err, t.now().Add(retryPause)
	}
	return known, err
}

// state returns what is known without asking, if that will do.
func (t *tokens) state() (known token, done bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	switch {
	case t.known.text != "" && now.Before(t.known.until):
		return t.known, true, nil
	case t.failed != nil && now.Before(t.until):
		return token{}, true, t.failed
	}
	return token{}, false, nil
}

// drop forgets a token that was refused, unless there is a newer one already.
func (t *tokens) drop(refused token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known.text == refused.text {
		t.known = token{}
	}
}

// fetch asks the token endpoint (RFC 6749 §4.4). Its errors quote nothing.
func (t *tokens) fetch(ctx context.Context) (token, error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	header := http.Header{
		"Accept":       {"application/json"},
		"Content-Type": {"application/x-www-form-urlencoded"},
	}
	if err := t.credentials.Add(form, header); err != nil {
		return token{}, fmt.Errorf("logging in to keycloak: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return token{}, errors.New("logging in to keycloak: the URL cannot be asked")
	}
	req.Header = header
	asked := t.now()
	resp, err := t.do(req)
	if err != nil {
		return token{}, fmt.Errorf("logging in to keycloak: %w", err)
	}
	defer resp.Body.Close()
	defer remote.Drain(resp)
	if err := loginRefusal(resp.StatusCode); err != nil {
		return token{}, err
	}
	text, err := remote.ReadBody(resp, maxTokenAnswer)
	if err != nil {
		return token{}, fmt.Errorf("logging in to keycloak: %w", err)
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"` // seconds
	}
	if err := remote.Decode(text, &answer); err != nil {
		return token{}, fmt.Errorf("logging in to keycloak: %w", err)
	}
	const most = 24 * 60 * 60
	if answer.AccessToken == "" || strings.ContainsAny(answer.AccessToken, "\r\n") {
		return token{}, errors.New("logging in to keycloak: the answer has no token")
	}
	life := time.Duration(min(max(answer.ExpiresIn, 0), most)) * time.Second
	return token{answer.AccessToken, asked.Add(life - min(reserve, life/10))}, nil
}

// loginRefusal says what an answer means that has no token.
func loginRefusal(status int) error {
	switch status {
	case http.StatusOK:
		return nil
	case http.StatusBadRequest, http.StatusUnauthorized:
		return fmt.Errorf("keycloak does not let the client log in (status %d): check client_id and client_secret or private_key, "+
			"and that the client is confidential and has its service account on", status)
	case http.StatusNotFound:
		return errors.New("keycloak answers 404 to the client's login: check the realm's name in issuer or backchannel_url")
	}
	return fmt.Errorf("keycloak answers %d to the client's login", status)
}

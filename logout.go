package keycloakcacheauth

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
)

// maxLogoutBody bounds what is read of a back-channel logout, in bytes. Its
// token has some 900.
const maxLogoutBody = 64 << 10

// checkLogout tells what is wrong with the settings of back-channel logout.
func (h *Handler) checkLogout() error {
	switch {
	case h.LogoutPath == "" && len(h.LogoutClients) == 0:
		return nil
	case h.LogoutPath == "":
		return errors.New("logout_path: there are clients and no path; give the path that Keycloak sends logouts to")
	case !isPlainPath(h.LogoutPath):
		return errors.New("logout_path is a plain path, such as /oidc/backchannel-logout, without query or escapes")
	case h.LogoutPath == h.ResourceMetadata, h.ResourceMetadata == resourceMetadataDefault && strings.HasPrefix(h.LogoutPath, wellKnownResource):
		return errors.New("logout_path and resource_metadata are the same path; change one of the two")
	case len(h.LogoutClients) == 0 && len(h.Audiences) == 0:
		return errors.New("logout_path needs the ids of the clients whose logouts count here, after the path: there is no audience to take them from")
	case slices.Contains(h.LogoutClients, ""):
		return errors.New("logout_path: a client's id is empty; write the one under which Keycloak knows it")
	}
	for _, client := range h.LogoutClients {
		if err := checkGlobalPlaceholders(client); err != nil {
			return fmt.Errorf("logout_path: %w", err)
		}
	}
	return nil
}

// isLogout tells whether the request is a back-channel logout.
func (h *Handler) isLogout(r *http.Request) bool {
	return h.LogoutPath != "" && r.URL.Path == h.LogoutPath
}

// serveLogout answers Keycloak's call at the end of a session (OpenID Connect
// Back-Channel Logout 1.0 section 2.8). Whoever calls shows no credential but
// the logout token itself.
func (h *Handler) serveLogout(w http.ResponseWriter, r *http.Request) (outcome, error) {
	decided, err := h.logOut(r)
	if decided != outcomeLogout {
		h.logLogoutRefused(decided, err)
		if decided == outcomeMethodNotAllowed {
			w.Header().Set("Allow", http.MethodPost)
		}
		return decided, decided.refusal(w.Header(), challengeDetails{})
	}
	w.Header().Set("Cache-Control", "no-store")
	return decided, nil
}

func (h *Handler) logOut(r *http.Request) (outcome, error) {
	raw, decided, err := logoutToken(r)
	if decided != "" {
		return decided, err
	}
	logout, err := h.tokens.VerifyLogout(r.Context(), raw, h.logoutClients)
	if err != nil {
		switch decided := outcomeOfToken(err); decided {
		case outcomeKeysUnavailable, outcomeClientGone:
			return decided, err
		default:
			return outcomeLogoutRefused, err
		}
	}
	ended := store.Logout{
		Issuer: logout.Issuer, SID: logout.SessionID, Sub: logout.Subject, IssuedAt: logout.IssuedAt,
		// no token of the session lives longer
		Until: logout.IssuedAt.Add(orDefault(h.MaxTokenLifetime, defaultTokenLifetime) + h.leeway()),
	}
	news, err := h.members.stores.logOut(r.Context(), ended, h.members.observer(store.Want{}))
	if c := h.logger.Check(zap.DebugLevel, "logged out by Keycloak"); c != nil {
		c.Write(zap.String("issuer", logout.Issuer), zap.String("kc_id", logout.Subject), zap.Bool("replayed", !news))
	}
	if err != nil {
		return outcomeLogoutPending, err
	}
	return outcomeLogout, nil
}

// logoutToken takes the logout token out of the form that Keycloak posts.
// Parameters that are not known are ignored (section 2.5).
func logoutToken(r *http.Request) (string, outcome, error) {
	if r.Method != http.MethodPost {
		return "", outcomeMethodNotAllowed, nil
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return "", outcomeLogoutRefused, errors.New("the body is no application/x-www-form-urlencoded form")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxLogoutBody+1))
	switch {
	case err != nil:
		return "", outcomeLogoutRefused, errors.New("the body ended before its time")
	case len(body) > maxLogoutBody:
		return "", outcomeLogoutTooLarge, nil
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return "", outcomeLogoutRefused, errors.New("the form is malformed")
	}
	tokens := form["logout_token"]
	if len(tokens) != 1 || tokens[0] == "" {
		return "", outcomeLogoutRefused, errors.New("the form does not hold one logout_token")
	}
	return tokens[0], "", nil
}

func (h *Handler) logLogoutRefused(decided outcome, err error) {
	if decided == outcomeLogoutPending {
		h.logger.Warn("a logout is known to this node only, until Redis is back", zap.Error(err))
		return
	}
	h.mistakes.noteLogout(err)
	if c := h.logger.Check(zap.DebugLevel, "back-channel logout refused"); c != nil {
		fields := []zap.Field{zap.String("reason", string(decided)), zap.Error(err)}
		if verdict, ok := errors.AsType[*token.Error](err); ok && verdict.Hint != "" {
			fields = append(fields, zap.String("hint", verdict.Hint))
		}
		c.Write(fields...)
	}
}

const defaultTokenLifetime = 24 * time.Hour

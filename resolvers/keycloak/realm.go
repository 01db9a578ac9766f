package keycloakresolver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/clientauth"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/shared"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/internal/remote"
)

const (
	// maxAnswer bounds the body of an answer, in bytes: a thousand roles or groups
	// have about 200 KiB.
	maxAnswer = 1 << 20

	// maxGroups bounds the groups of one user.
	maxGroups = 1000
)

// realms holds those of all configurations, so that a reload with unchanged settings
// keeps connections and the client's token.
var realms = shared.NewPool[*realm]()

// settings are all that makes one realm different from another, secrets resolved.
type settings struct {
	Issuer             string
	RealmURL, AdminURL string // without a slash at the end
	ClientID           string
	ClientSecret       string // or
	PrivateKey, KeyID  string // the key is the file's content
	Way                remote.Way

	now func() time.Time
}

// realm is a realm's admin API, as one client may use it. It may be shared by several
// configurations.
type realm struct {
	settings
	client *remote.Client
	tokens *tokens

	mu      sync.Mutex
	clients map[string]string // a client's own id by its client id
}

func newRealm(s settings) (*realm, error) {
	credentials, err := clientauth.New(clientauth.Config{
		ClientID: s.ClientID, Secret: s.ClientSecret, PrivateKey: s.PrivateKey, KeyID: s.KeyID,
		Audience: s.Issuer, Now: s.now,
	})
	if err != nil {
		return nil, err
	}
	client := s.Way.Client()
	return &realm{
		settings: s,
		client:   client,
		tokens: &tokens{
			endpoint:    s.RealmURL + "/protocol/openid-connect/token",
			credentials: credentials,
			do:          client.Do,
			now:         s.now,
			asking:      make(chan struct{}, 1),
		},
		clients: make(map[string]string),
	}, nil
}

// Destruct implements [caddy.Destructor]. Requests of the last configuration that
// used the realm may still be being served, and go on to ask.
func (r *realm) Destruct() error {
	r.client.Close()
	return nil
}

// Rights of the client realm-management that calls need.
const (
	viewUsers         = "view-users"
	viewOrganizations = "view-users and view-organizations"
	viewClients       = "view-users and view-clients"
)

// user is what Keycloak says of one.
type user struct {
	ID         string              `json:"id"`
	Enabled    bool                `json:"enabled"`
	Attributes map[string][]string `json:"attributes"`
}

// user returns the user of an id. The error is [member.ErrUnknown] only if Keycloak
// itself says that there is none: others that answer 404 do not know.
func (r *realm) user(ctx context.Context, id string) (user, error) {
	var found user
	err := r.get(ctx, "/users/"+url.PathEscape(id), viewUsers, &found)
	if missing, ok := errors.AsType[notFoundError](err); ok && missing.said == "User not found" {
		return user{}, member.ErrUnknown
	}
	if err == nil && found.ID == "" {
		err = errors.New("keycloak answers with a user who has no id")
	}
	return found, err
}

// organization is one that a user belongs to.
type organization struct {
	Alias   string `json:"alias"`
	Enabled bool   `json:"enabled"`
}

func (r *realm) organizations(ctx context.Context, userID string) ([]organization, error) {
	var found []organization
	// Searching for an organization looks at names and domains, and not at aliases.
	err := r.get(ctx, "/organizations/members/"+url.PathEscape(userID)+"/organizations?briefRepresentation=true", viewOrganizations, &found)
	if _, missing := errors.AsType[notFoundError](err); missing {
		err = fmt.Errorf("%w: switch Organizations on in the realm's settings; keycloak has them since version 26", err)
	}
	return found, err
}

// group is one that a user is in.
type group struct {
	Name string `json:"name"`
	Path string `json:"path"`
}

// hasPlainName tells whether what follows the last slash of the path is the name.
func (g group) hasPlainName() bool {
	return !strings.Contains(g.Name, "/") && strings.HasSuffix(g.Path, "/"+g.Name)
}

func (r *realm) groups(ctx context.Context, userID string) ([]group, error) {
	var found []group
	err := r.get(ctx, "/users/"+url.PathEscape(userID)+"/groups?briefRepresentation=true&first=0&max="+strconv.Itoa(maxGroups+1), viewUsers, &found)
	if len(found) > maxGroups {
		return nil, fmt.Errorf("the user is in more than %d groups", maxGroups)
	}
	return found, err
}

// role is one that a user has.
type role struct {
	Name string `json:"name"`
}

func names(roles []role) []string {
	texts := make([]string, len(roles))
	for i, role := range roles {
		texts[i] = role.Name
	}
	slices.Sort(texts) // Keycloak's order says nothing and changes
	return texts
}

// realmRoles returns the names of the realm roles a user has, in whatever way.
func (r *realm) realmRoles(ctx context.Context, userID string) ([]string, error) {
	var found []role
	err := r.get(ctx, "/users/"+url.PathEscape(userID)+"/role-mappings/realm/composite", viewUsers, &found)
	return names(found), err
}

// clientRoles returns the names of a client's roles that a user has, in whatever way.
func (r *realm) clientRoles(ctx context.Context, userID, clientID string) ([]string, error) {
	for attempt := 1; ; attempt++ {
		id, err := r.clientByName(ctx, clientID)
		if err != nil {
			return nil, err
		}
		var found []role
		err = r.get(ctx, "/users/"+url.PathEscape(userID)+"/role-mappings/clients/"+url.PathEscape(id)+"/composite", viewClients, &found)
		if _, missing := errors.AsType[notFoundError](err); missing && attempt == 1 {
			r.forgetClient(clientID) // made anew, it has another id
			continue
		}
		return names(found), err
	}
}

// clientByName returns the id of the client with a client id.
func (r *realm) clientByName(ctx context.Context, clientID string) (string, error) {
	r.mu.Lock()
	known := r.clients[clientID]
	r.mu.Unlock()
	if known != "" {
		return known, nil
	}
	var found []struct {
		ID       string `json:"id"`
		ClientID string `json:"clientId"`
	}
	if err := r.get(ctx, "/clients?clientId="+url.QueryEscape(clientID), viewClients, &found); err != nil {
		return "", err
	}
	if len(found) != 1 || found[0].ClientID != clientID || found[0].ID == "" {
		return "", errors.New("the realm has no client of the configured name, or does not show it; check roles client")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clients[clientID] = found[0].ID // as many as configurations name
	return found[0].ID, nil
}

func (r *realm) forgetClient(clientID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.clients, clientID)
}

// self returns the id of the client's own user.
func (r *realm) self(ctx context.Context) (string, error) {
	token, err := r.tokens.get(ctx)
	if err != nil {
		return "", err
	}
	return token.subject()
}

// notFoundError is Keycloak's 404, with what it says is missing.
type notFoundError struct{ said string }

func (notFoundError) Error() string {
	return "keycloak answers 404: there is no such realm or resource"
}

// get asks the admin API at a path below the realm's for the JSON of to. With a token
// that is not taken any more, it asks once more with a new one.
func (r *realm) get(ctx context.Context, path, rights string, to any) error {
	for attempt := 1; ; attempt++ {
		token, err := r.tokens.get(ctx)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.AdminURL+path, nil)
		if err != nil {
			return errors.New("asking keycloak: the URL cannot be asked")
		}
		req.Header.Set("Authorization", "Bearer "+token.text)
		req.Header.Set("Accept", "application/json")
		resp, err := r.client.Do(req)
		if err != nil {
			return fmt.Errorf("asking keycloak: %w", err)
		}
		if resp.StatusCode == http.StatusUnauthorized && attempt == 1 {
			remote.Drain(resp)
			_ = resp.Body.Close()
			r.tokens.drop(token)
			continue
		}
		defer resp.Body.Close()
		defer remote.Drain(resp)
		return readAnswer(resp, rights, to)
	}
}

// readAnswer reads the JSON of an answer. Its errors quote nothing of it.
func readAnswer(resp *http.Response, rights string, to any) error {
	switch status := resp.StatusCode; {
	case status == http.StatusOK:
		text, err := remote.ReadBody(resp, maxAnswer)
		if err != nil {
			return fmt.Errorf("asking keycloak: %w", err)
		}
		if err := remote.Decode(text, to); err != nil {
			return fmt.Errorf("asking keycloak: %w", err)
		}
		return nil
	case status == http.StatusForbidden:
		return fmt.Errorf("keycloak answers 403: the client's service account needs %s of realm-management", rights)
	case status == http.StatusUnauthorized:
		return errors.New("keycloak answers 401 to a new token: is it reached by the name that is in its tokens? see its hostname option")
	case status == http.StatusNotFound:
		return notFoundError{saidMissing(resp)}
	case 300 <= status && status <= 399:
		return fmt.Errorf("keycloak redirects (status %d), which is not followed; configure the URL that it leads to", status)
	default:
		return fmt.Errorf("keycloak answers %d", status)
	}
}

// saidMissing returns what Keycloak says it did not find, for comparison.
func saidMissing(resp *http.Response) string {
	const most = 4 << 10
	var said struct {
		Error string `json:"error"`
	}
	if text, err := remote.ReadBody(resp, most); err != nil || remote.Decode(text, &said) != nil {
		return ""
	}
	return said.Error
}

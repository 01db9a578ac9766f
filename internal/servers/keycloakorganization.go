package servers

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
)

// KeycloakOrganization is what CreateOrganization needs to know.
type KeycloakOrganization struct {
	Alias    string // also its name
	Disabled bool
	Members  []string // ids of users
}

// CreateOrganization makes an organization. The realm needs "organizationsEnabled":
// true.
func (r *KeycloakRealm) CreateOrganization(ctx context.Context, o KeycloakOrganization) (id string, err error) {
	id, err = r.admin.create(ctx, r.at("/organizations"), map[string]any{
		"name": o.Alias, "alias": o.Alias, "enabled": !o.Disabled,
	})
	if err != nil {
		return "", err
	}
	for _, user := range o.Members {
		if err := r.Call(ctx, http.MethodPost, "/organizations/"+id+"/members", user, nil); err != nil {
			return "", err
		}
	}
	return id, nil
}

// CreateGroup makes a group, at the top or, with the id of a parent, below that, and
// puts users into it.
func (r *KeycloakRealm) CreateGroup(ctx context.Context, parentID, name string, userIDs ...string) (id string, err error) {
	at := "/groups"
	if parentID != "" {
		at += "/" + parentID + "/children"
	}
	id, err = r.admin.create(ctx, r.at(at), map[string]any{"name": name})
	if err != nil {
		return "", err
	}
	for _, user := range userIDs {
		if err := r.Call(ctx, http.MethodPut, "/users/"+user+"/groups/"+id, nil, nil); err != nil {
			return "", err
		}
	}
	return id, nil
}

// AssignClientRoles gives a user roles of a client, which must exist.
func (r *KeycloakRealm) AssignClientRoles(ctx context.Context, userID, clientID string, names ...string) error {
	id, err := r.clientUUID(ctx, clientID)
	if err != nil {
		return err
	}
	roles := make([]map[string]any, len(names))
	for i, name := range names {
		if err := r.Call(ctx, http.MethodGet, "/clients/"+id+"/roles/"+url.PathEscape(name), nil, &roles[i]); err != nil {
			return err
		}
	}
	return r.Call(ctx, http.MethodPost, "/users/"+userID+"/role-mappings/clients/"+id, roles, nil)
}

// ServiceAccount returns the id of the user that a client with a service account is
// when it logs in for itself.
func (r *KeycloakRealm) ServiceAccount(ctx context.Context, clientID string) (userID string, err error) {
	id, err := r.clientUUID(ctx, clientID)
	if err != nil {
		return "", err
	}
	var user struct {
		ID string `json:"id"`
	}
	err = r.Call(ctx, http.MethodGet, "/clients/"+id+"/service-account-user", nil, &user)
	return user.ID, err
}

func (r *KeycloakRealm) clientUUID(ctx context.Context, clientID string) (string, error) {
	var found []struct {
		ID string `json:"id"`
	}
	if err := r.Call(ctx, http.MethodGet, "/clients?clientId="+url.QueryEscape(clientID), nil, &found); err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("keycloak: %d clients are called %s", len(found), clientID)
	}
	return found[0].ID, nil
}

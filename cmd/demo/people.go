package main

import "encoding/json"

// The two tenants. Both are customers of the application behind Caddy.
const (
	acme   = "acme"
	globex = "globex"
)

// users can log in to Keycloak. The password is the name.
var users = []string{"alice", "bob", "carol"}

// membership is one user's place in one tenant: a row in the members' table.
type membership struct {
	user, tenant string
	id           string // the application's own
	active       bool
	roles        []string
	plan         string
}

// memberships are what the database holds at first.
var memberships = []membership{
	{user: "alice", tenant: acme, id: "acme-1", active: true, roles: []string{"owner", "buyer"}, plan: "gold"},
	{user: "carol", tenant: acme, id: "acme-2", active: false, roles: []string{"buyer"}, plan: "gold"},
	{user: "alice", tenant: globex, id: "globex-1", active: true, roles: []string{"buyer"}, plan: "basic"},
	{user: "bob", tenant: globex, id: "globex-2", active: true, roles: []string{"owner"}, plan: "basic"},
}

// find returns the user's membership in the tenant.
func find(user, tenant string) (membership, bool) {
	for _, m := range memberships {
		if m.user == user && m.tenant == tenant {
			return m, true
		}
	}
	return membership{}, false
}

// rolesColumn is how the table holds roles: the resolver reads the column `roles` as
// a list if it is a JSON array.
func (m membership) rolesColumn() string {
	text, _ := json.Marshal(m.roles) // strings cannot fail
	return string(text)
}

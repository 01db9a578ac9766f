package main

import (
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// audience is what tokens are for.
const audience = "shop"

// tokenLifespan is longer than any run, and shorter than the longest that is accepted.
const tokenLifespan = 12 * time.Hour

// crowd makes users and their tokens, as many as are asked for. Signing takes a
// millisecond, so they are kept for all cases.
type crowd struct {
	realm  *kctest.Realm
	users  []person // each with a token of his own
	tokens []person // one user with many tokens
}

func newCrowd(realm *kctest.Realm) *crowd {
	realm.SetLifespan(tokenLifespan)
	realm.ActiveKey("RS256") // made once, before many want it
	return &crowd{realm: realm}
}

// different returns that many users.
func (c *crowd) different(n int) []person {
	if missing := n - len(c.users); missing > 0 {
		c.users = append(c.users, mint(missing, func(i int) person {
			return c.token(c.user(len(c.users) + i))
		})...)
	}
	return c.users[:n]
}

// renewed returns one user with that many tokens, as if they had been refreshed again
// and again.
func (c *crowd) renewed(n int) []person {
	user := c.user(-1)
	if len(c.tokens) > 0 {
		user.ID = c.tokens[0].id
	}
	if missing := n - len(c.tokens); missing > 0 {
		c.tokens = append(c.tokens, mint(missing, func(int) person { return c.token(user) })...)
	}
	return c.tokens[:n]
}

func (c *crowd) user(number int) kctest.User {
	name := "user-" + strconv.Itoa(number)
	return c.realm.AddUser(kctest.User{
		Username: name, Email: name + "@example.test", EmailVerified: true, GivenName: "Ann-Sophie", FamilyName: "Example",
		RealmRoles: []string{"customer", "reporting"}, ClientRoles: map[string][]string{audience: {"orders-read", "orders-write"}},
		Groups: []string{"/sales/europe"},
	})
}

// token makes a token of the size that a Keycloak of today makes for such a user:
// 1.4 KiB.
func (c *crowd) token(user kctest.User) person {
	return person{id: user.ID, token: c.realm.AccessToken(user, kctest.ForClient(kctest.Client{ID: "app", Audience: []string{audience}}))}
}

// mint calls f for 0 to n-1, on all processors.
func mint(n int, f func(int) person) []person {
	made := make([]person, n)
	var group sync.WaitGroup
	workers := runtime.NumCPU()
	for worker := range workers {
		group.Go(func() {
			for i := worker; i < n; i += workers {
				made[i] = f(i)
			}
		})
	}
	group.Wait()
	return made
}

// tenantNames returns the names of n tenants.
func tenantNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("tenant-%03d", i)
	}
	return names
}

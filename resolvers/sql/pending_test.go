package sqlresolver

import (
	"cmp"
	"slices"
	"strconv"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// many returns n users of one tenant.
func many(tenant string, n int) []member.Change {
	changes := make([]member.Change, n)
	for i := range changes {
		changes[i] = member.Change{Tenant: tenant, KCID: strconv.Itoa(i)}
	}
	return changes
}

func TestPendingChanges(t *testing.T) {
	user := member.Change{Tenant: "acme", KCID: "k"}
	all := []member.Change{{All: true}}
	manyTenants := make([]member.Change, maxPending+1)
	for i := range manyTenants {
		manyTenants[i].Tenant = strconv.Itoa(i)
	}
	tests := map[string]struct {
		add     []member.Change
		want    []member.Change
		widened uint64
	}{
		"none":                             {nil, []member.Change{}, 0},
		"the same twice":                   {[]member.Change{user, user}, []member.Change{user}, 0},
		"a user by two names":              {[]member.Change{user, {Tenant: "acme", ID: "k"}}, []member.Change{{Tenant: "acme", ID: "k"}, user}, 0},
		"a tenant has its users":           {[]member.Change{user, {Tenant: "acme"}, {Tenant: "acme", KCID: "l"}}, []member.Change{{Tenant: "acme"}}, 0},
		"but not those of others":          {[]member.Change{{Tenant: "acme"}, {Tenant: "b", KCID: "k"}}, []member.Change{{Tenant: "acme"}, {Tenant: "b", KCID: "k"}}, 0},
		"nor a user of all tenants":        {[]member.Change{{Tenant: "acme"}, {KCID: "k"}}, []member.Change{{KCID: "k"}, {Tenant: "acme"}}, 0},
		"everybody":                        {[]member.Change{user, {All: true}, user, {Tenant: "b"}}, all, 0},
		"everybody, whatever else it says": {[]member.Change{{All: true, Tenant: "acme"}}, all, 0},
		"as many as are kept":              {many("acme", maxPerTenant), sorted(many("acme", maxPerTenant)), 0},
		"too many of a tenant":             {many("acme", maxPerTenant+5), []member.Change{{Tenant: "acme"}}, 1},
		"too many of no tenant":            {many("", maxPending+5), all, 1},
		"too many tenants":                 {manyTenants, all, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := newPending()
			if got := p.add(test.add...); got != test.widened {
				t.Errorf("%d were widened, want %d", got, test.widened)
			}
			if got := sorted(p.take()); !slices.Equal(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if left := p.take(); len(left) != 0 || p.count != 0 {
				t.Errorf("%+v are left, %d counted", left, p.count)
			}
		})
	}
}

// However much is notified, what waits is bounded, and nothing is lost.
func TestPendingChangesAreBounded(t *testing.T) {
	p := newPending()
	for i := range 40 {
		p.add(many(strconv.Itoa(i), maxPerTenant-1)...)
		held := 0
		for _, changes := range p.tenants {
			held += max(1, len(changes))
		}
		if held > maxPending || held != p.count {
			t.Fatalf("%d changes wait, %d are counted", held, p.count)
		}
	}
	if got := p.take(); !slices.Equal(got, []member.Change{{All: true}}) {
		t.Errorf("%d changes instead of one for all", len(got))
	}
}

func sorted(changes []member.Change) []member.Change {
	slices.SortFunc(changes, func(a, b member.Change) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.KCID, b.KCID), cmp.Compare(a.ID, b.ID))
	})
	return changes
}

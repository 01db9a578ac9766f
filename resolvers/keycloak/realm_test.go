package keycloakresolver

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func TestAnswersThatAreRefused_RS014(t *testing.T) {
	users, organizations := "GET "+admin+"/users/odd", "GET "+admin+"/organizations/members/odd/organizations"
	tests := map[string]struct {
		path    string
		answer  http.HandlerFunc
		want    string
		unknown bool
	}{
		"Keycloak knows no such user":  {users, status(404, `{"error":"User not found"}`), "", true},
		"there is no such realm":       {users, status(404, `{"error":"Realm not found."}`), "404", false},
		"a proxy's 404":                {users, status(404, `<html>User not found`), "404", false},
		"no right":                     {users, status(403, ""), "needs view-users of realm-management", false},
		"no right to organizations":    {organizations, status(403, ""), "needs view-users and view-organizations of", false},
		"no organizations":             {organizations, status(404, `{"error":"User not found"}`), "switch Organizations on", false},
		"a redirect":                   {users, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, "redirects (status 302)", false},
		"500":                          {users, status(500, ""), "answers 500", false},
		"204":                          {users, status(204, ""), "answers 204", false},
		"HTML":                         {users, answer("<html>"), "not JSON of the expected form", false},
		"a user without id":            {users, answer(`{"enabled":true}`), "no id", false},
		"a user of two ids":            {users, answer(`{"id":"a","id":"b"}`), "not JSON of the expected form", false},
		"an id that is a number":       {users, answer(`{"id":1,"enabled":true}`), "not JSON of the expected form", false},
		"a list instead of a user":     {users, answer(`[]`), "not JSON of the expected form", false},
		"a long list of organizations": {organizations, answer("[" + strings.Repeat(" ", maxAnswer) + "]"), "more than 1048576 bytes", false},
		"a compressed answer": {users, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(200)
		}, "compressed", false},
		"an object of organizations":     {organizations, answer(`{"alias":"acme"}`), "not JSON of the expected form", false},
		"organizations that are nothing": {organizations, answer(`[]`), "", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.HandleFunc(test.path, test.answer)
			q := f.query()
			q.KCID = "odd"
			m, err := f.resolver(t, "").Resolve(t.Context(), q)
			checkError(t, err, test.want)
			if m != nil || errors.Is(err, member.ErrUnknown) != test.unknown {
				t.Errorf("got %+v, %v", m, err)
			}
		})
	}
}

func TestWhatKeycloakSaysIsReturned(t *testing.T) {
	tests := map[string]struct {
		user string
		want member.Member
	}{
		"another user, RS-005":     {`{"id":"B","enabled":true}`, member.Member{KCID: "B", ID: "B", Active: true}},
		"not known to be enabled":  {`{"id":"odd"}`, member.Member{KCID: "odd", ID: "odd"}},
		"enabled in other letters": {`{"id":"odd","Enabled":true}`, member.Member{KCID: "odd", ID: "odd"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.HandleFunc("GET "+admin+"/users/odd", answer(test.user))
			q := f.query()
			q.KCID = "odd"
			got, err := f.resolver(t, "").Resolve(t.Context(), q)
			if err != nil || got.KCID != test.want.KCID || got.ID != test.want.ID || got.Active != test.want.Active || got.Tenant != "acme" {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

// Ids that would lead to another path of the admin API are nobody's.
func TestIDsThatAreNotAskedFor_RS013(t *testing.T) {
	f := newFake(t)
	r := f.resolver(t, "")
	for _, id := range []string{"", ".", "..", "k1/groups", `k1\..`, "k1;x=y", "k1?x", "k1#x", "k1%2fgroups", "k1\n", strings.Repeat("k", 256)} {
		q := f.query()
		q.KCID = id
		if m, err := r.Resolve(t.Context(), q); !errors.Is(err, member.ErrUnknown) || m != nil {
			t.Errorf("%q: got %+v, %v", id, m, err)
		}
	}
	q := f.query()
	q.Issuer += "/"
	if m, err := r.Resolve(t.Context(), q); !errors.Is(err, member.ErrUnknown) || m != nil {
		t.Errorf("a user of another realm: %+v, %v", m, err)
	}
	q = f.query()
	q.Tenant = ""
	if m, err := r.Resolve(t.Context(), q); !errors.Is(err, member.ErrUnknown) || m != nil {
		t.Errorf("no tenant: %+v, %v", m, err)
	}
	if f.calls.Load()+f.logins.Load() != 0 {
		t.Error("Keycloak was asked")
	}
}

func TestGroupsThatMakeMembers(t *testing.T) {
	tests := map[string]struct {
		groups, tenant string
		roles          member.Value // the zero Value for nobody
	}{
		"the group":                     {`[{"name":"acme","path":"/tenants/acme"}]`, "acme", member.List()},
		"one below":                     {`[{"name":"editors","path":"/tenants/acme/editors"}]`, "acme", member.List("editors")},
		"one that begins alike":         {`[{"name":"acme2","path":"/tenants/acme2"}]`, "acme", member.Value{}},
		"one elsewhere":                 {`[{"name":"acme","path":"/x/tenants/acme"}]`, "acme", member.Value{}},
		"one in other letters":          {`[{"name":"ACME","path":"/tenants/ACME"}]`, "acme", member.Value{}},
		"the parent":                    {`[{"name":"tenants","path":"/tenants"}]`, "acme", member.Value{}},
		"a name like the path":          {`[{"name":"tenants/acme","path":"/tenants/acme"}]`, "acme", member.Value{}},
		"a name like a path below":      {`[{"name":"acme/editors","path":"/tenants/acme/editors"}]`, "acme", member.Value{}},
		"a path without its name":       {`[{"name":"","path":"/tenants/acme"}]`, "acme", member.Value{}},
		"a tenant that is a path below": {`[{"name":"editors","path":"/tenants/acme/editors"}]`, "acme/editors", member.Value{}},
		"no tenant":                     {`[{"name":"tenants","path":"/tenants/"}]`, "", member.Value{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.HandleFunc("GET "+admin+"/users/k1/groups", answer(test.groups))
			q := f.query()
			q.Tenant = test.tenant
			m, err := f.resolver(t, `"members":"groups","roles":"groups"`).Resolve(t.Context(), q)
			if !test.roles.IsList() {
				if !errors.Is(err, member.ErrUnknown) || m != nil {
					t.Errorf("got %+v, %v", m, err)
				}
				return
			}
			if err != nil || m.Tenant != test.tenant || !m.Attributes["roles"].Equal(test.roles) {
				t.Errorf("got %+v, %v", m, err)
			}
		})
	}
}

func TestGroupsAreBounded(t *testing.T) {
	f := newFake(t)
	f.HandleFunc("GET "+admin+"/users/k1/groups", answer("["+strings.Repeat(`{"name":"a","path":"/a"},`, maxGroups)+`{"name":"acme","path":"/tenants/acme"}]`))
	_, err := f.resolver(t, `"members":"groups"`).Resolve(t.Context(), f.query())
	checkError(t, err, "more than 1000 groups")
}

func TestAClientThatIsMadeAnewIsFound(t *testing.T) {
	f := newFake(t)
	id := atomic.Pointer[string]{}
	name := func(s string) { id.Store(&s) }
	name("first")
	f.HandleFunc("GET "+admin+"/clients", func(w http.ResponseWriter, r *http.Request) {
		answer(`[{"id":"`+*id.Load()+`","clientId":"`+r.FormValue("clientId")+`"}]`)(w, r)
	})
	f.HandleFunc("GET "+admin+"/users/k1/role-mappings/clients/{id}/composite", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") != *id.Load() {
			status(404, `{"error":"Client not found"}`)(w, r)
			return
		}
		answer(`[{"name":"viewer"},{"name":"editor"}]`)(w, r)
	})
	r := f.resolver(t, `"roles":"client","roles_client":"an app"`)
	for _, client := range []string{"first", "second", "second"} {
		name(client)
		m, err := r.Resolve(t.Context(), f.query())
		if err != nil || !m.Attributes["roles"].Equal(member.List("editor", "viewer")) {
			t.Errorf("got %+v, %v", m, err)
		}
	}
}

func TestTimeIsBounded_RS001(t *testing.T) {
	f := newFake(t)
	release := make(chan struct{})
	defer close(release)
	f.HandleFunc("GET "+admin+"/users/slow", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	q := f.query()
	q.KCID = "slow"
	started := time.Now()
	_, err := f.resolver(t, `"timeout":"100ms"`).Resolve(t.Context(), q)
	if took := time.Since(started); !errors.Is(err, context.DeadlineExceeded) || took > 2*time.Second {
		t.Errorf("after %s: %v", took, err)
	}
}

func TestKeycloakThatIsDownIsAnError_RS002(t *testing.T) {
	f := newFake(t)
	r := f.resolver(t, "")
	f.Server.Close()
	_, err := r.Resolve(t.Context(), f.query())
	checkError(t, err, "logging in to keycloak", "connection refused")
	if errors.Is(err, member.ErrUnknown) {
		t.Errorf("got %v", err)
	}
}

package claimsresolver

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func load(t *testing.T, config string) (*Resolver, error) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	module, err := ctx.LoadModuleByID(member.Namespace+".claims", json.RawMessage(config))
	if err != nil {
		return nil, err
	}
	return module.(*Resolver), nil
}

func mustLoad(t *testing.T, config string) *Resolver {
	t.Helper()
	r, err := load(t, config)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func parse(text string) (*Resolver, error) {
	tokens, err := caddyfile.Tokenize([]byte(text), "Caddyfile")
	if err != nil {
		return nil, err
	}
	d := caddyfile.NewDispenser(tokens)
	d.Next() // the word resolver
	d.Next()
	module, err := caddyfile.UnmarshalModule(d, member.Namespace+"."+d.Val())
	if err != nil {
		return nil, err
	}
	return module.(*Resolver), nil
}

func checkError(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range want {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not hold %q", err, part)
		}
	}
}

func TestCaddyfileAndJSONAreTheSame(t *testing.T) {
	tests := map[string]struct{ caddyfile, json string }{
		"nothing but the name": {`resolver claims`, `{}`},
		"everything": {`resolver claims {
			tenant groups /tenants/{tenant}
			id employee.number
			roles realm_access.roles groups
			attribute plan plan
			attribute teams my.teams
		}`, `{"tenant":"groups","tenant_template":"/tenants/{tenant}","id":"employee.number",` +
			`"roles":["realm_access.roles","groups"],"attributes":{"plan":"plan","teams":"my.teams"}}`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r, err := parse(test.caddyfile)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(r)
			if err != nil || string(got) != test.json {
				t.Errorf("got  %s (%v)\nwant %s", got, err, test.json)
			}
		})
	}
}

func TestCaddyfileErrorsNameLineAndRemedy(t *testing.T) {
	tests := map[string]struct {
		lines string
		want  []string
	}{
		"an unknown option":            {"claim x", []string{"Caddyfile:2", `no option "claim"`, "attribute, id, roles, tenant"}},
		"a line that is no option":     {"s3cret=x", []string{"Caddyfile:2", "none of its options"}},
		"an option twice":              {"id a\nid b", []string{"Caddyfile:3", "id is given twice"}},
		"a tenant without claim":       {"tenant", []string{"Caddyfile:2", "tenant <claim> [<template>]"}},
		"a tenant with too much":       {"tenant a b c", []string{"Caddyfile:2", "tenant <claim> [<template>]"}},
		"an id without claim":          {"id", []string{"Caddyfile:2", "id has no value"}},
		"roles without claim":          {"roles", []string{"Caddyfile:2", "roles <claim...>"}},
		"an attribute without claim":   {"attribute plan", []string{"Caddyfile:2", "attribute <name> <claim>"}},
		"an attribute twice":           {"attribute plan a\nattribute plan b", []string{"Caddyfile:3", "plan is given twice"}},
		"an attribute of a field":      {"attribute tenant a", []string{"Caddyfile:2", `"tenant"`, "rename it"}},
		"an attribute of odd name":     {"attribute a.b a", []string{"Caddyfile:2", "letters, digits"}},
		"an attribute that is roles":   {"attribute roles groups", []string{"Caddyfile:2", "option of its own"}},
		"an attribute of a field's ſ":  {"attribute iſſuer a", []string{"Caddyfile:2", "rename it"}},
		"an attribute of other letter": {"attribute Tenant a", []string{"Caddyfile:2", "rename it"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := parse("resolver claims {\n" + test.lines + "\n}")
			checkError(t, err, test.want...)
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%q quotes the line", err)
			}
		})
	}
	_, err := parse("resolver claims organization")
	checkError(t, err, "Caddyfile:1", "takes no arguments")
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	tests := map[string]struct{ config, want string }{
		"an unknown field":             {`{"claim":"x"}`, "claim"},
		"a template without tenant":    {`{"tenant_template":"/tenants/"}`, "tenant_template: it must have {tenant} in it once"},
		"a template with two":          {`{"tenant_template":"{tenant}/{tenant}"}`, "once"},
		"realm roles that are tenants": {`{"tenant":"realm_access.roles"}`, "tenant-{tenant}"},
		"a tenant with control":        {`{"tenant":"a\nb"}`, "tenant: the path of the claim is not printable"},
		"an id with control":           {`{"id":"a\u0000"}`, "id: the path"},
		"an empty path of roles":       {`{"roles":[""]}`, "roles: the path of the claim is missing"},
		"roles as attribute":           {`{"attributes":{"roles":"groups"}}`, "roles <claim...>"},
		"an attribute without a path":  {`{"attributes":{"plan":""}}`, "attribute plan: the path of the claim is missing"},
		"an attribute of a field name": {`{"attributes":{"active":"x"}}`, `"active" cannot be the name`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, test.config)
			checkError(t, err, test.want)
		})
	}
}

func TestResolve(t *testing.T) {
	type claims = map[string]member.Value
	const everything = `{"id":"number","roles":["realm_access.roles","groups"],"attributes":{"plan":"plan","teams":"teams"}}`
	tests := map[string]struct {
		config string
		claims claims
		tenant string
		want   *member.Member // nil for nobody
	}{
		"an organization of a list":            {`{}`, claims{"organization": member.List("other", "acme")}, "acme", &member.Member{ID: "k1"}},
		"an organization that is a text":       {`{}`, claims{"organization": member.Text("acme")}, "acme", &member.Member{ID: "k1"}},
		"no organization":                      {`{}`, nil, "acme", nil},
		"no organizations":                     {`{}`, claims{"organization": member.List()}, "acme", nil},
		"another organization":                 {`{}`, claims{"organization": member.List("acm", "acme2", "ac")}, "acme", nil},
		"an organization in other letters":     {`{}`, claims{"organization": member.List("ACME", "Acme")}, "acme", nil},
		"several organizations in one text":    {`{}`, claims{"organization": member.Text("acme other")}, "acme", nil},
		"no tenant, and an empty claim":        {`{}`, claims{"organization": member.Text("")}, "", nil},
		"no tenant, and an empty item":         {`{}`, claims{"organization": member.List("")}, "", nil},
		"a tenant that is another claim's":     {`{}`, claims{"groups": member.List("acme")}, "acme", nil},
		"a group by its path":                  {`{"tenant":"groups","tenant_template":"/tenants/{tenant}"}`, claims{"groups": member.List("/tenants/acme")}, "acme", &member.Member{ID: "k1"}},
		"a group below that":                   {`{"tenant":"groups","tenant_template":"/tenants/{tenant}"}`, claims{"groups": member.List("/tenants/acme/editors")}, "acme", nil},
		"a tenant like the template's":         {`{"tenant":"groups","tenant_template":"/tenants/{tenant}"}`, claims{"groups": member.List("/tenants/{tenant}")}, "acme", nil},
		"a tenant that looks like a parameter": {`{"tenant":"groups","tenant_template":"t-{tenant}"}`, claims{"groups": member.List("t-t-{tenant}")}, "t-{tenant}", &member.Member{ID: "k1"}},
		"an organization like a placeholder":   {`{}`, claims{"organization": member.List("{env.HOME}")}, "{env.HOME}", &member.Member{ID: "k1"}},
		"an id, roles and attributes": {
			everything,
			claims{
				"organization": member.List("acme"), "number": member.Text("4711"), "plan": member.Text("{env.HOME}"), "teams": member.List("a", "b"),
				"realm_access.roles": member.List("editor", "viewer"), "groups": member.Text("viewer"),
			},
			"acme",
			&member.Member{ID: "4711", Attributes: claims{
				"roles": member.List("editor", "viewer"), "plan": member.Text("{env.HOME}"), "teams": member.List("a", "b"),
			}},
		},
		"absent attributes and roles":   {everything, claims{"organization": member.List("acme"), "number": member.Text("1")}, "acme", &member.Member{ID: "1", Attributes: claims{"roles": member.List()}}},
		"an id that is absent":          {everything, claims{"organization": member.List("acme")}, "acme", nil},
		"an id that is a list":          {everything, claims{"organization": member.List("acme"), "number": member.List("1")}, "acme", nil},
		"an id that is empty":           {everything, claims{"organization": member.List("acme"), "number": member.Text("")}, "acme", nil},
		"an id, and another's tenant":   {everything, claims{"organization": member.List("other"), "number": member.Text("1")}, "acme", nil},
		"roles that are an empty text":  {`{"roles":["r"]}`, claims{"organization": member.List("acme"), "r": member.Text("")}, "acme", &member.Member{ID: "k1", Attributes: claims{"roles": member.List()}}},
		"a realm role named for tenant": {`{"tenant":"realm_access.roles","tenant_template":"tenant:{tenant}"}`, claims{"realm_access.roles": member.List("tenant:acme")}, "acme", &member.Member{ID: "k1"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := mustLoad(t, test.config)
			got, err := r.Resolve(t.Context(), member.Query{Tenant: test.tenant, KCID: "k1", Issuer: "i", Claims: test.claims})
			if test.want == nil {
				if !errors.Is(err, member.ErrUnknown) || got != nil {
					t.Fatalf("got %+v, %v, want ErrUnknown", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.KCID != "k1" || got.Tenant != test.tenant || got.Issuer != "i" || !got.Active || got.ID != test.want.ID {
				t.Errorf("got %+v", got)
			}
			if !maps.EqualFunc(got.Attributes, test.want.Attributes, member.Value.Equal) {
				t.Errorf("attributes are %v, want %v", got.Attributes, test.want.Attributes)
			}
		})
	}
}

// What is read has to be declared, or the handler would not hand it over.
func TestClaimsAreAllThatIsRead(t *testing.T) {
	tests := map[string]struct {
		config string
		want   []string
	}{
		"the default": {`{}`, []string{"organization"}},
		"everything, each once": {
			`{"tenant":"groups","id":"number","roles":["groups","r"],"attributes":{"a":"x","b":"x","c":"number"}}`,
			[]string{"groups", "number", "r", "x"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := mustLoad(t, test.config)
			if got := r.Claims(); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			r.Claims()[0] = "changed by a reader"
			if got := r.Claims(); !slices.Equal(got, test.want) {
				t.Errorf("after a change of the result: %q", got)
			}
		})
	}
}

func TestItIsNeverCachedAndTellsNoIssuersApart(t *testing.T) {
	var r member.Resolver = mustLoad(t, `{}`)
	if u, ok := r.(member.Uncached); !ok || !u.Uncached() {
		t.Error("its answers would be cached")
	}
	// The administrator of any realm can have its tokens name any tenant.
	if _, ok := r.(member.IssuerTeller); ok {
		t.Error("it claims to tell issuers apart")
	}
}

func TestIdentity(t *testing.T) {
	const base = `{"tenant":"groups","id":"number","roles":["r"],"attributes":{"a":"x","b":"y"}}`
	want := mustLoad(t, base).Identity()
	if again := mustLoad(t, `{"attributes":{"b":"y","a":"x"},"roles":["r"],"id":"number","tenant":"groups"}`).Identity(); again != want {
		t.Error("the order of the settings changes it")
	}
	for _, change := range [][2]string{{`"groups"`, `"group"`}, {`"number"`, `"numbers"`}, {`["r"]`, `["s"]`}, {`"x"`, `"z"`}, {`"b"`, `"c"`}, {`{"tenant"`, `{"tenant_template":"t{tenant}","tenant"`}} {
		if mustLoad(t, strings.Replace(base, change[0], change[1], 1)).Identity() == want {
			t.Errorf("%s instead of %s does not change it", change[1], change[0])
		}
	}
	if mustLoad(t, `{}`).Identity() != mustLoad(t, `{"tenant":"organization","tenant_template":"{tenant}"}`).Identity() {
		t.Error("a default that is written out changes it")
	}
}

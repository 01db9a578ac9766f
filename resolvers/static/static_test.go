package static

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
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
	module, err := ctx.LoadModuleByID(member.Namespace+".static", json.RawMessage(config))
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

func TestCaddyfileAndJSONAreTheSame(t *testing.T) {
	r, err := parse(`resolver static {
		member acme 1f0e {
			id 41
			plan gold
			roles editor
			teams red blue
			list groups staff
			list tags
		}
		member other 1f0e {
			id {env.KCA_TEST_ID}
			inactive
		}
	}`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"members":[` +
		`{"tenant":"acme","kc_id":"1f0e","id":"41","attributes":{"groups":["staff"],"plan":"gold","roles":["editor"],"tags":[],"teams":["red","blue"]}},` +
		`{"tenant":"other","kc_id":"1f0e","id":"{env.KCA_TEST_ID}","inactive":true}]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestCaddyfileErrorsNameLineAndRemedy(t *testing.T) {
	member := func(lines string) string { return "member acme 1f0e {\n" + lines + "\n}" }
	tests := map[string]struct {
		lines string
		want  []string
	}{
		"nobody":                           {"", []string{"Caddyfile:1", "lists nobody", "add: member"}},
		"something else than a member":     {"user acme 1f0e", []string{"Caddyfile:2", `"user"`, "member <tenant> <kc_id>"}},
		"a member without a kc_id":         {"member acme {\n}", []string{"Caddyfile:2", "takes a tenant and a kc_id"}},
		"a member with too many arguments": {"member acme 1f0e 41 {\n}", []string{"Caddyfile:2", "takes a tenant and a kc_id"}},
		"a member with an empty tenant":    {`member "" 1f0e {` + "\n}", []string{"Caddyfile:2", "takes a tenant"}},
		"a member without a block":         {"member acme 1f0e", []string{"Caddyfile:2", "has no id", "add the line"}},
		"a member without an id":           {member("plan gold"), []string{"has no id", "add the line"}},
		"an id without a value":            {member("id"), []string{"Caddyfile:3", "id takes one value"}},
		"an id with two values":            {member("id 1 2"), []string{"Caddyfile:3", "id takes one value"}},
		"two ids":                          {member("id 1\nid 2"), []string{"Caddyfile:4", "id is given twice"}},
		"inactive with a value":            {member("id 1\ninactive false"), []string{"Caddyfile:4", "inactive takes no value"}},
		"inactive twice":                   {member("id 1\ninactive\ninactive"), []string{"Caddyfile:5", "inactive is given twice"}},
		"an attribute without a value":     {member("id 1\nplan"), []string{"Caddyfile:4", "plan has no value", "list plan"}},
		"an attribute twice":               {member("id 1\nplan a\nplan b"), []string{"Caddyfile:5", "plan is given twice", "one line"}},
		"an attribute and a list":          {member("id 1\nplan a\nlist plan b"), []string{"Caddyfile:5", "plan is given twice"}},
		"an attribute of a reserved name":  {member("id 1\ntenant other"), []string{"Caddyfile:4", `"tenant"`, "rename it"}},
		"an attribute of a strange name":   {member("id 1\na.b c"), []string{"Caddyfile:4", `"a.b"`, "letters, digits"}},
		"a list without a name":            {member("id 1\nlist"), []string{"Caddyfile:4", "list needs the name"}},
		"a member twice":                   {member("id 1") + "\n" + member("id 2"), []string{"Caddyfile:5", "listed twice"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := parse("resolver static {\n" + test.lines + "\n}")
			checkError(t, err, test.want...)
		})
	}
	_, err := parse("resolver static members.json {\n}")
	checkError(t, err, "Caddyfile:1", "takes no arguments")
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

func TestConfigurationsThatAreRefused(t *testing.T) {
	t.Setenv("KCA_TEST_SAME", "acme")
	t.Setenv("KCA_TEST_EMPTY", "")
	t.Setenv("KCA_TEST_LATIN1", "caf\xe9")
	tests := map[string]struct {
		config string
		want   string
	}{
		"nobody":                          {`{}`, "none is listed"},
		"an unknown field":                {`{"members":[{"tenant":"a","kc_id":"k","id":"1","role":"x"}]}`, "role"},
		"no tenant":                       {`{"members":[{"kc_id":"k","id":"1"}]}`, "number 1: tenant: none is given"},
		"no kc_id":                        {`{"members":[{"tenant":"a","id":"1"}]}`, "number 1: kc_id: none is given"},
		"no id":                           {`{"members":[{"tenant":"a","kc_id":"k"}]}`, "number 1: id: none is given"},
		"a variable that is not set":      {`{"members":[{"tenant":"a","kc_id":"k","id":"{env.KCA_TEST_EMPTY}"}]}`, "id: evaluated placeholder {env.KCA_TEST_EMPTY} is empty"},
		"a variable that is not UTF-8":    {`{"members":[{"tenant":"a","kc_id":"k","id":"{env.KCA_TEST_LATIN1}"}]}`, "id: the value is not UTF-8"},
		"a placeholder of requests":       {`{"members":[{"tenant":"{http.request.host}","kc_id":"k","id":"1"}]}`, "tenant: unrecognized placeholder"},
		"an attribute with a placeholder": {`{"members":[{"tenant":"a","kc_id":"k","id":"1","attributes":{"x":["{nope}"]}}]}`, `attribute x: unrecognized placeholder {nope}; use`},
		"a reserved attribute":            {`{"members":[{"tenant":"a","kc_id":"k","id":"1","attributes":{"issuer":"x"}}]}`, `"issuer" cannot be the name`},
		"an attribute of a strange name":  {`{"members":[{"tenant":"a","kc_id":"k","id":"1","attributes":{"":"x"}}]}`, `"" cannot be the name`},
		"an attribute that is a number":   {`{"members":[{"tenant":"a","kc_id":"k","id":"1","attributes":{"n":1}}]}`, "neither a string nor a list"},
		"a member twice":                  {`{"members":[{"tenant":"acme","kc_id":"k","id":"1"},{"tenant":"{env.KCA_TEST_SAME}","kc_id":"k","id":"2"}]}`, "number 2: the user is listed twice"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, test.config)
			checkError(t, err, test.want)
		})
	}
}

func TestResolve(t *testing.T) {
	t.Setenv("KCA_TEST_ID", "id {env.HOME}")
	r := mustLoad(t, `{"members":[
		{"tenant":"acme","kc_id":"k1","id":"{env.KCA_TEST_ID}","attributes":{"roles":"editor","plan":"\\{gold\\}","teams":["a","b"],"none":[],"blank":""}},
		{"tenant":"acme","kc_id":"k2","id":"2","inactive":true,"attributes":{"roles":""}},
		{"tenant":"Acme","kc_id":"k1","id":"3"}]}`)
	tests := map[string]struct {
		kcID, tenant string
		want         *member.Member // nil for nobody
	}{
		"a member": {"k1", "acme", &member.Member{Active: true, ID: "id {env.HOME}", Attributes: map[string]member.Value{
			"roles": member.List("editor"), "plan": member.Text("{gold}"), "teams": member.List("a", "b"), "none": member.List(), "blank": member.Text(""),
		}}},
		"an inactive member":        {"k2", "acme", &member.Member{ID: "2", Attributes: map[string]member.Value{"roles": member.List()}}},
		"the same user elsewhere":   {"k1", "Acme", &member.Member{Active: true, ID: "3"}},
		"a user of another tenant":  {"k2", "Acme", nil},
		"another tenant's case":     {"k1", "ACME", nil},
		"another user's case":       {"K1", "acme", nil},
		"nobody":                    {"", "", nil},
		"tenant and user exchanged": {"acme", "k1", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := r.Resolve(t.Context(), member.Query{KCID: test.kcID, Tenant: test.tenant, Issuer: "i"})
			if test.want == nil {
				if !errors.Is(err, member.ErrUnknown) || got != nil {
					t.Fatalf("got %v, %v, want ErrUnknown", got, err)
				}
				if known := test.tenant == "acme" || test.tenant == "Acme"; errors.Is(err, member.ErrUnknownTenant) == known {
					t.Errorf("got %v, and the tenant is known: %t", err, known)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.KCID != test.kcID || got.Tenant != test.tenant || got.Active != test.want.Active || got.ID != test.want.ID || got.Issuer != "" {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if !maps.EqualFunc(got.Attributes, test.want.Attributes, member.Value.Equal) {
				t.Errorf("attributes are %v, want %v", got.Attributes, test.want.Attributes)
			}
		})
	}
}

// The identity is part of the key under which members are stored: a changed
// configuration must be effective at once, the same in another order need not.
func TestIdentity(t *testing.T) {
	const a, b = `{"tenant":"acme","kc_id":"k1","id":"1","attributes":{"x":"1","y":["2"]}}`, `{"tenant":"acme","kc_id":"k2","id":"2"}`
	of := func(members string) string { return mustLoad(t, `{"members":[`+members+`]}`).Identity() }
	want := of(a + "," + b)
	if !strings.HasPrefix(want, "static ") || strings.Contains(want, "k1") {
		t.Errorf("the identity is %q", want)
	}
	if of(b+","+a) != want {
		t.Error("the order of the members changes it")
	}
	for what, members := range map[string]string{
		"a member less":             a,
		"another id":                a + "," + strings.Replace(b, `"id":"2"`, `"id":"3"`, 1),
		"a member who is inactive":  a + "," + strings.Replace(b, `"id"`, `"inactive":true,"id"`, 1),
		"another attribute":         strings.Replace(a, `"x":"1"`, `"x":"2"`, 1) + "," + b,
		"a list instead of a text":  strings.Replace(a, `"x":"1"`, `"x":["1"]`, 1) + "," + b,
		"an attribute less":         strings.Replace(a, `"x":"1",`, ``, 1) + "," + b,
		"a member of another place": strings.Replace(a, "acme", "acm", 1) + "," + b,
	} {
		if of(members) == want {
			t.Errorf("%s does not change it", what)
		}
	}
}

// FuzzUnmarshalCaddyfile looks for configurations that do not survive the trip
// through JSON that each of them takes.
func FuzzUnmarshalCaddyfile(f *testing.F) {
	f.Add("member a b {\n id 1\n roles x\n list y\n inactive\n}")
	f.Add("member a b {\n id {env.X}\n}\nmember a c {\n id \"\"\n}")
	f.Fuzz(func(t *testing.T, lines string) {
		r, err := parse("resolver static {\n" + lines + "\n}")
		if err != nil || !strings.HasPrefix(lines, "member") {
			return
		}
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back Resolver
		if err := json.Unmarshal(raw, &back); err != nil {
			t.Fatal(err)
		}
		if again, err := json.Marshal(back); err != nil || string(again) != string(raw) {
			t.Errorf("%s became %s (%v)", raw, again, err)
		}
	})
}

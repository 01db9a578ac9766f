package keycloakresolver

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

const client = "issuer https://sso/realms/main\nclient_id caddy\nclient_secret s3cret\n"

func TestCaddyfileAndJSONAreTheSame(t *testing.T) {
	tests := map[string]struct{ caddyfile, json string }{
		"the least": {client, `{"issuer":"https://sso/realms/main","client_id":"caddy","client_secret":"s3cret"}`},
		"a private key": {
			"issuer https://sso/realms/main\nclient_id caddy\nprivate_key /etc/key.pem mine\n",
			`{"issuer":"https://sso/realms/main","client_id":"caddy","private_key_file":"/etc/key.pem","key_id":"mine"}`,
		},
		"everything": {
			client + `backchannel_url http://keycloak:8080/realms/main
			members groups /customers/{tenant}
			roles client app
			attribute plan plan
			attribute teams my.teams
			timeout 1s
			trust_pool file /etc/ca.pem
			client_certificate /etc/cert.pem /etc/key.pem
			insecure_http
			`, `{"issuer":"https://sso/realms/main","backchannel_url":"http://keycloak:8080/realms/main","client_id":"caddy","client_secret":"s3cret",` +
				`"members":"groups","template":"/customers/{tenant}","roles":"client","roles_client":"app","attributes":{"plan":"plan","teams":"my.teams"},` +
				`"timeout":1000000000,"trust_pool":{"pem_files":["/etc/ca.pem"],"provider":"file"},` +
				`"client_certificate_file":"/etc/cert.pem","client_key_file":"/etc/key.pem","insecure_http":true}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r, err := parse("resolver keycloak {\n" + test.caddyfile + "}")
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
		"no issuer":               {"client_id a\nclient_secret s3cret", []string{"has no issuer", "add the line"}},
		"no client":               {"issuer a\nclient_secret s3cret", []string{"has no client_id"}},
		"no secret":               {"issuer a\nclient_id a", []string{"needs one of client_secret and private_key"}},
		"a secret and a key":      {client + "private_key /x", []string{"needs one of client_secret and private_key"}},
		"a key of too much":       {"issuer a\nclient_id a\nprivate_key a b c", []string{"Caddyfile:4", "<key_file> [<key_id>]"}},
		"two words of a secret":   {client[:len(client)-1] + " s3cret", []string{"Caddyfile:4", "client_secret takes one value"}},
		"an unknown option":       {client + "realm main", []string{"Caddyfile:5", `no option "realm"`, "attribute, backchannel_url"}},
		"members of nothing":      {client + "members", []string{"Caddyfile:5", "realm_roles <template>"}},
		"roles of too much":       {client + "roles client a b", []string{"Caddyfile:5", "client <client_id>"}},
		"an attribute of nothing": {client + "attribute plan", []string{"Caddyfile:5", "<name> <user_attribute>"}},
		"an attribute twice":      {client + "attribute plan a\nattribute plan b", []string{"Caddyfile:6", "given twice"}},
		"an attribute of a field": {client + "attribute id a", []string{"Caddyfile:5", "rename it"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := parse("resolver keycloak {\n" + test.lines + "\n}")
			checkError(t, err, test.want...)
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%q quotes the secret", err)
			}
		})
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	t.Setenv("KCA_TEST_EMPTY", "")
	const base = `"client_id":"a","client_secret":"s3cret"`
	issuer := func(url string) string { return `{"issuer":"` + url + `",` + base + `}` }
	with := func(more string) string { return `{"issuer":"https://sso/realms/main",` + base + `,` + more + `}` }
	tests := map[string]struct{ config, want string }{
		"no issuer":                      {`{` + base + `}`, "issuer: none is given"},
		"no client":                      {`{"issuer":"https://sso/realms/main","client_secret":"s3cret"}`, "client_id: none is given"},
		"no secret":                      {`{"issuer":"https://sso/realms/main","client_id":"a"}`, "client_secret: none is given"},
		"a secret and a key":             {with(`"private_key_file":"/x"`), "exclude each other"},
		"the id of no key":               {with(`"key_id":"x"`), "key_id goes with private_key"},
		"a key that is missing":          {`{"issuer":"https://sso/realms/main","client_id":"a","private_key_file":"/nonexistent"}`, "private_key: give the path of a file that can be read"},
		"a key that is none":             {`{"issuer":"https://sso/realms/main","client_id":"a","private_key_file":"config_test.go"}`, "private key: neither a JWK nor a PEM file"},
		"a secret that is not set":       {`{"issuer":"https://sso/realms/main","client_id":"a","client_secret":"{env.KCA_TEST_EMPTY}"}`, "{env.KCA_TEST_EMPTY} is empty"},
		"a relative issuer":              {issuer("/realms/main"), "not an absolute https:// URL"},
		"an issuer that is no realm":     {issuer("https://sso/"), "not the URL of a realm"},
		"an issuer without a name":       {issuer("https://sso/realms/"), "not the URL of a realm"},
		"a page of a realm":              {issuer("https://sso/realms/main/account"), "not the URL of a realm"},
		"an issuer with a query":         {issuer("https://sso/realms/main?s3cret"), "not the URL of a realm"},
		"an issuer with a password":      {issuer("https://u:s3cret@sso/realms/main"), "user name or password"},
		"an issuer by http":              {issuer("http://sso/realms/main"), "insecure_http"},
		"an issuer per tenant":           {issuer("https://sso/realms/{tenant}"), "placeholder that is not known"},
		"a back channel by http":         {with(`"backchannel_url":"http://keycloak/realms/main"`), "backchannel_url: http:// is only accepted"},
		"a back channel of no realm":     {with(`"backchannel_url":"https://keycloak/"`), "backchannel_url: not the URL of a realm"},
		"another way to be a member":     {with(`"members":"users"`), "members: it must be organizations, groups or realm_roles"},
		"a template of organizations":    {with(`"template":"{tenant}"`), "organizations takes no template"},
		"a group without tenant":         {with(`"members":"groups","template":"/tenants"`), "members: the template of groups"},
		"a group that is no path":        {with(`"members":"groups","template":"{tenant}"`), "members: the template of groups"},
		"a group that ends with a slash": {with(`"members":"groups","template":"/{tenant}/"`), "members: the template of groups"},
		"a role without tenant":          {with(`"members":"realm_roles","template":"member"`), "members: realm_roles needs a template"},
		"a role that is the tenant":      {with(`"members":"realm_roles","template":"{tenant}"`), "and more in it"},
		"a role without template":        {with(`"members":"realm_roles"`), "members: realm_roles needs a template"},
		"other roles":                    {with(`"roles":"all"`), "roles: it must be realm, client or groups"},
		"a client's roles, of none":      {with(`"roles":"client"`), "roles: client goes with the client's id"},
		"a client without its roles":     {with(`"roles":"realm","roles_client":"a"`), "roles: client goes with the client's id"},
		"roles as an attribute":          {with(`"attributes":{"roles":"x"}`), "an option of its own"},
		"an attribute of a field":        {with(`"attributes":{"kc_id":"x"}`), "rename it"},
		"an attribute of nothing":        {with(`"attributes":{"plan":""}`), "attribute plan: the user's attribute"},
		"a long time-out":                {with(`"timeout":"1h"`), "timeout: it must be positive and at most 30s"},
		"a certificate without key":      {with(`"client_certificate_file":"/x"`), "client_certificate: give two files"},
		"a trust pool of a missing file": {with(`"trust_pool":{"provider":"file","pem_files":["/nonexistent"]}`), "trust_pool"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, test.config)
			checkError(t, err, test.want)
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%q quotes the secret", err)
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	t.Setenv("KCA_TEST_HOST", "sso.example.com")
	tests := map[string]struct{ config, realm, admin string }{
		"an issuer":               {`{"issuer":"https://{env.KCA_TEST_HOST}/realms/main",`, "https://sso.example.com/realms/main", "https://sso.example.com/admin/realms/main"},
		"an issuer below a path":  {`{"issuer":"https://sso/auth/realms/a%20b",`, "https://sso/auth/realms/a%20b", "https://sso/auth/admin/realms/a%20b"},
		"a realm called realms":   {`{"issuer":"https://sso/realms/realms",`, "https://sso/realms/realms", "https://sso/admin/realms/realms"},
		"a back channel":          {`{"issuer":"http://sso/realms/main","backchannel_url":"https://keycloak/realms/main/",`, "https://keycloak/realms/main", "https://keycloak/admin/realms/main"},
		"a back channel by http":  {`{"issuer":"https://sso/realms/main","insecure_http":true,"backchannel_url":"http://keycloak/realms/main",`, "http://keycloak/realms/main", "http://keycloak/admin/realms/main"},
		"loopback without saying": {`{"issuer":"http://127.0.0.1:8080/realms/main",`, "http://127.0.0.1:8080/realms/main", "http://127.0.0.1:8080/admin/realms/main"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r, err := load(t, test.config+`"client_id":"a","client_secret":"s3cret"}`)
			if err != nil {
				t.Fatal(err)
			}
			if r.realm.RealmURL != test.realm || r.realm.AdminURL != test.admin {
				t.Errorf("got %s and %s", r.realm.RealmURL, r.realm.AdminURL)
			}
		})
	}
}

func TestIdentityAndSharing(t *testing.T) {
	const base = `{"issuer":"https://sso/realms/main","client_id":"a","client_secret":"s3cret","members":"groups","roles":"client","roles_client":"app","attributes":{"a":"x"}}`
	of := func(config string) *Resolver {
		t.Helper()
		r, err := load(t, config)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	want := of(base)
	if id := want.Identity(); !strings.Contains(id, "https://sso/realms/main") || strings.Contains(id, "s3cret") {
		t.Errorf("it is %s", id)
	}
	if of(base).realm != want.realm {
		t.Error("unchanged settings make a new client")
	}
	for what, change := range map[string][2]string{
		"another realm":     {"main", "other"},
		"another template":  {`"roles":`, `"template":"/{tenant}","roles":`},
		"another client":    {`"app"`, `"other"`},
		"other roles":       {`"client","roles_client":"app"`, `"realm"`},
		"another attribute": {`"x"`, `"y"`},
		"organizations":     {`"members":"groups",`, ``},
	} {
		if of(strings.Replace(base, change[0], change[1], 1)).Identity() == want.Identity() {
			t.Errorf("%s does not change it", what)
		}
	}
	rotated := of(strings.Replace(base, "s3cret", "rotated", 1))
	if rotated.Identity() != want.Identity() {
		t.Error("a new secret changes the identity")
	}
	if rotated.realm == want.realm {
		t.Error("a new secret keeps the old client")
	}
	if tells, ok := any(want).(member.IssuerTeller); !ok || !tells.TellsIssuers() {
		t.Error("it does not tell issuers apart")
	}
	if err := new(Resolver).Cleanup(); err != nil {
		t.Errorf("one that was never provisioned: %v", err)
	}
}

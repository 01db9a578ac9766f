package httpresolver

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestCaddyfileAndJSONAreTheSame(t *testing.T) {
	r, err := parse(`resolver http {
		url https://app.example.com/members/{tenant}/{kc_id}?e={claim.email}
		method GET
		send_claims email name
		header X-Api-Version 2
		header Host {env.APP_HOST}
		bearer {env.APP_TOKEN}
		hmac {env.APP_SECRET} X-Signature
		on_unknown https://app.example.com/members
		timeout 1s
		trust_pool file /etc/ca.pem
		client_certificate /etc/cert.pem /etc/key.pem
		insecure_http
	}`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(r)
	const want = `{"url":"https://app.example.com/members/{tenant}/{kc_id}?e={claim.email}","method":"GET","send_claims":["email","name"],` +
		`"headers":{"Host":"{env.APP_HOST}","X-Api-Version":"2"},"bearer":"{env.APP_TOKEN}","hmac_secret":"{env.APP_SECRET}","hmac_header":"X-Signature",` +
		`"on_unknown":"https://app.example.com/members","timeout":1000000000,"trust_pool":{"pem_files":["/etc/ca.pem"],"provider":"file"},` +
		`"client_certificate_file":"/etc/cert.pem","client_key_file":"/etc/key.pem","insecure_http":true}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s (%v)\nwant %s", got, err, want)
	}
}

func TestCaddyfileErrorsNameLineAndRemedy(t *testing.T) {
	const url = "url https://a/{tenant}/{kc_id}\n"
	tests := map[string]struct {
		lines string
		want  []string
	}{
		"no url":                    {"timeout 1s", []string{"has no url", "add the line"}},
		"a url without value":       {"url", []string{"Caddyfile:2", "url has no value"}},
		"a url with two":            {"url s3cret b", []string{"Caddyfile:2", "url takes one value"}},
		"two urls":                  {url + url, []string{"Caddyfile:3", "url is given twice"}},
		"an unknown option":         {url + "urls s3cret", []string{"Caddyfile:3", `no option "urls"`, "bearer, client_certificate"}},
		"a broken line":             {url + "s3cret=", []string{"Caddyfile:3", "none of its options"}},
		"a time-out without unit":   {url + "timeout 5", []string{"Caddyfile:3", "500ms or 2s"}},
		"a time-out of nothing":     {url + "timeout 0s", []string{"Caddyfile:3", "positive duration"}},
		"a header without value":    {url + "header X-A", []string{"Caddyfile:3", "header <name> <value>"}},
		"a header twice":            {url + "header X-A s3cret\nheader X-A b", []string{"Caddyfile:4", "given twice"}},
		"hmac without secret":       {url + "hmac", []string{"Caddyfile:3", "hmac <secret> [<header>]"}},
		"a certificate without key": {url + "client_certificate a", []string{"Caddyfile:3", "<certificate_file> <key_file>"}},
		"a flag with a value":       {url + "insecure_http yes", []string{"Caddyfile:3", "takes no value"}},
		"a trust pool of no name":   {url + "trust_pool", []string{"Caddyfile:3", "trust_pool file <path>"}},
		"an unknown trust pool":     {url + "trust_pool s3cret", []string{"Caddyfile:3", "no module of this Caddy"}},
		"too many arguments":        {url + "send_claims" + strings.Repeat(" a", 33), []string{"Caddyfile:3", "send_claims <claim...>"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := parse("resolver http {\n" + test.lines + "\n}")
			checkError(t, err, test.want...)
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%q quotes a value", err)
			}
		})
	}
	_, err := parse("resolver http https://app")
	checkError(t, err, "Caddyfile:1", "takes no arguments")
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	t.Setenv("KCA_TEST_LINE", "s3cret\n")
	t.Setenv("KCA_TEST_EMPTY", "")
	t.Setenv("KCA_TEST_LATIN1", "caf\xe9")
	with := func(more string) string { return `{"url":"https://a/{tenant}/{kc_id}",` + more + `}` }
	url := func(u string) string { return `{"url":"` + u + `"}` }
	tests := map[string]struct{ config, want string }{
		"no url":                            {`{}`, "url: none is given"},
		"an unknown field":                  {with(`"claims":["a"]`), "claims"},
		"another method":                    {with(`"method":"get"`), "method: it must be GET or POST"},
		"a negative time-out":               {with(`"timeout":-1`), "timeout: it must be positive"},
		"a long time-out":                   {with(`"timeout":"1m"`), "at most 30s"},
		"claims of a GET":                   {with(`"send_claims":["a"]`), "send_claims: a GET has no body"},
		"a claim without path":              {with(`"method":"POST","send_claims":[""]`), "send_claims: the path"},
		"a relative url":                    {url("/m/{tenant}/{kc_id}"), "url: not an absolute https:// URL"},
		"another scheme":                    {url("ftp://a/{tenant}/{kc_id}"), "url: not an absolute"},
		"http to another host":              {url("http://app/{tenant}/{kc_id}"), "insecure_http"},
		"a password":                        {url("https://u:s3cret@a/{tenant}/{kc_id}"), "user name or password"},
		"a fragment":                        {url("https://a/{tenant}/{kc_id}#s3cret"), "fragment"},
		"a tenant as host":                  {url("https://{tenant}/{kc_id}"), "no parameters in"},
		"a tenant within the host":          {url("https://{tenant}.app.example.com/{kc_id}"), "no parameters in"},
		"a tenant after the host":           {url("https://app{tenant}/{kc_id}"), "no parameters in"},
		"a tenant as port":                  {url("https://app:{tenant}/{kc_id}"), "not a URL"},
		"a tenant as scheme":                {url("{tenant}://app/{kc_id}"), "not an absolute"},
		"dots in the path":                  {url("https://a/m/../{tenant}/{kc_id}"), `".."`},
		"encoded dots in the path":          {url("https://a/m/%2e%2E/{tenant}/{kc_id}"), `".."`},
		"blanks":                            {url("https://a/m s3cret/{tenant}/{kc_id}"), "not a URL"},
		"a NUL":                             {url(`https://a/\u00000\u0000/{tenant}/{kc_id}`), "NUL character"},
		"the issuer in the path":            {url("https://a/{issuer}/{tenant}/{kc_id}"), "{issuer} holds slashes"},
		"part of a value in the query":      {url("https://a/{tenant}?kc_id=x{kc_id}"), "a whole value"},
		"two parameters in a value":         {url("https://a/?x={tenant}{kc_id}"), "a whole value"},
		"a name that is a parameter":        {url("https://a/{kc_id}?{tenant}=x"), "a whole value"},
		"no tenant, so all get one answer":  {url("https://a/{kc_id}"), "{tenant} is not in it"},
		"no user, so all get one answer":    {url("https://a/{tenant}"), "{kc_id} is not in it"},
		"a placeholder of requests":         {url("https://a/{tenant}/{kc_id}/{http.request.host}"), "placeholder that is not known"},
		"a claim without path in the url":   {url("https://a/{tenant}/{kc_id}/{claim.}"), "the path of the claim is missing"},
		"a variable that is not set":        {url("https://a/{tenant}/{kc_id}/{env.KCA_TEST_EMPTY}"), "{env.KCA_TEST_EMPTY} is empty"},
		"a variable that is not UTF-8":      {with(`"bearer":"{env.KCA_TEST_LATIN1}"`), "not UTF-8"},
		"a bearer with a newline":           {with(`"bearer":"{env.KCA_TEST_LINE}"`), "bearer: the token has blanks or control characters"},
		"a bearer with a blank":             {with(`"bearer":"s3cret x"`), "bearer: the token has blanks"},
		"a bearer that is no placeholder":   {with(`"bearer":"s3cret{x"`), ""},
		"two authorizations":                {with(`"bearer":"x","headers":{"authorization":"y"}`), "leave one of them out"},
		"a header of HTTP's":                {with(`"headers":{"transfer-encoding":"x"}`), "Transfer-Encoding cannot be set"},
		"a header of the answer's":          {with(`"headers":{"If-None-Match":"x"}`), "If-None-Match cannot be set"},
		"a header of no name":               {with(`"headers":{"a b":"x"}`), "name is none of a header"},
		"a header in two cases":             {with(`"headers":{"X-A":"x","x-a":"y"}`), "X-A is given twice"},
		"a header with a newline":           {with(`"headers":{"X-A":"{env.KCA_TEST_LINE}"}`), "control characters"},
		"a signature's header alone":        {with(`"hmac_header":"X-A"`), "a header and no secret"},
		"a signature in HTTP's header":      {with(`"hmac_secret":"x","hmac_header":"Connection"`), "cannot be in that header"},
		"a signature in another's header":   {with(`"hmac_secret":"x","hmac_header":"X-A","headers":{"X-A":"y"}`), "X-A is set, too"},
		"a secret that is not set":          {with(`"hmac_secret":"{env.KCA_TEST_EMPTY}"`), "hmac: the placeholder {env.KCA_TEST_EMPTY} is empty"},
		"a certificate without key":         {with(`"client_certificate_file":"/x"`), "client_certificate: give two files"},
		"a certificate that is not there":   {with(`"client_certificate_file":"/nonexistent","client_key_file":"/nonexistent"`), "client_certificate: the certificate: give the path of a file that can be read"},
		"a url of creation that is bad":     {with(`"on_unknown":"http://app/"`), "on_unknown: http:// is only accepted"},
		"a trust pool that does not exist":  {with(`"trust_pool":{"provider":"nope"}`), "trust_pool"},
		"a trust pool of a missing file":    {with(`"trust_pool":{"provider":"file","pem_files":["/nonexistent"]}`), "trust_pool"},
		"an issuer in the path of creation": {with(`"on_unknown":"https://a/{issuer}"`), "on_unknown: {issuer}"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, test.config)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			checkError(t, err, test.want)
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%q quotes a secret", err)
			}
		})
	}
}

func TestIdentity(t *testing.T) {
	t.Setenv("KCA_TEST_TOKEN", "s3cret")
	t.Setenv("KCA_TEST_HOST", "https://a.example.com")
	of := func(config string) string { return mustLoad(t, "", config).Identity() }
	const base = `{"url":"{env.KCA_TEST_HOST}/{tenant}/{kc_id}?key={env.KCA_TEST_TOKEN}","headers":{"X-A":"1"},"bearer":"x"}`
	want := of(base)
	if !strings.HasPrefix(want, "http https://a.example.com ") || strings.Contains(want, "s3cret") {
		t.Errorf("it is %q", want)
	}
	for what, change := range map[string][2]string{
		"another path":      {`/{tenant}`, `/m/{tenant}`},
		"another parameter": {`?key`, `?x={issuer}&key`},
		"another method":    {`"headers"`, `"method":"POST","headers"`},
		"another header":    {`"1"`, `"2"`},
		"a creation":        {`"headers"`, `"on_unknown":"https://a","headers"`},
	} {
		if of(strings.Replace(base, change[0], change[1], 1)) == want {
			t.Errorf("%s does not change it", what)
		}
	}
	for what, change := range map[string][2]string{
		"another token":    {`"x"`, `"y"`},
		"another time-out": {`"bearer"`, `"timeout":"1s","bearer"`},
		"a signature":      {`"bearer"`, `"hmac_secret":"x","bearer"`},
	} {
		if of(strings.Replace(base, change[0], change[1], 1)) != want {
			t.Errorf("%s changes it", what)
		}
	}
	t.Setenv("KCA_TEST_HOST", "https://b.example.com")
	if of(base) == want {
		t.Error("another host does not change it")
	}
}

func TestReloadsShareWhatIsUnchanged(t *testing.T) {
	t.Setenv("KCA_TEST_TOKEN", "a")
	const config = `{"url":"https://a/{tenant}/{kc_id}","bearer":"{env.KCA_TEST_TOKEN}"}`
	first, second := mustLoad(t, "", config), mustLoad(t, "", config)
	if first.application != second.application {
		t.Error("unchanged settings make a new client")
	}
	t.Setenv("KCA_TEST_TOKEN", "b")
	if mustLoad(t, "", config).application == first.application {
		t.Error("a new secret keeps the old client")
	}
	// the old configuration answers requests that are still being served
	a := newApp(t, record(alice))
	r := mustLoad(t, a.URL, path)
	for range 2 {
		if err := r.Cleanup(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Resolve(t.Context(), aliceAtAcme); err != nil {
			t.Error(err)
		}
	}
	if err := new(Resolver).Cleanup(); err != nil {
		t.Errorf("one that was never provisioned: %v", err)
	}
}

func TestNothingIsAskedWhileLoading(t *testing.T) {
	a := newApp(t, record(alice))
	r := mustLoad(t, a.URL, path)
	if n := len(a.requests()); n != 0 {
		t.Errorf("%d requests before the first look-up", n)
	}
	if _, err := r.Resolve(t.Context(), aliceAtAcme); err != nil {
		t.Fatal(err)
	}
}

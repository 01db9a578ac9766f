package token

import (
	"net/url"
	"strings"
	"testing"
)

func TestTemplatesAreChecked(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		ok   bool
	}{
		"the realm at the end":      {"https://sso.example.com/realms/{tenant}", true},
		"the realm in between":      {"https://sso.example.com/realms/{tenant}/protocol/openid-connect/certs", true},
		"the realm first":           {"https://sso.example.com:8443/{tenant}", true},
		"a path before Keycloak's":  {"http://127.0.0.1:8080/auth/realms/{tenant}", true},
		"no realm":                  {"https://sso.example.com/realms/acme", false},
		"two":                       {"https://sso.example.com/{tenant}/{tenant}", false},
		"in the host":               {"https://{tenant}.example.com/realms/acme", false},
		"as the host":               {"https://{tenant}/realms/acme", false},
		"in the port":               {"https://sso.example.com:{tenant}/realms/acme", false},
		"in the scheme":             {"{tenant}://sso.example.com/realms/acme", false},
		"as the user":               {"https://{tenant}@sso.example.com/realms/acme", false},
		"in a query":                {"https://sso.example.com/realms/acme?realm=/{tenant}", false},
		"in a fragment":             {"https://sso.example.com/realms/acme#/{tenant}", false},
		"before a query":            {"https://sso.example.com/realms/{tenant}?", false},
		"the end of a segment":      {"https://sso.example.com/realms/acme-{tenant}", false},
		"the beginning of a one":    {"https://sso.example.com/realms/{tenant}-prod", false},
		"with a dot segment":        {"https://sso.example.com/realms/../{tenant}", false},
		"with a dot segment after":  {"https://sso.example.com/realms/{tenant}/..", false},
		"with an escape":            {"https://sso.example.com/real%6ds/{tenant}", false},
		"with a slash that is none": {`https://sso.example.com/realms\/{tenant}`, false},
		"another scheme":            {"file:///realms/{tenant}", false},
		"no URL":                    {"/realms/{tenant}", false},
		"nothing":                   {"", false},
		"another placeholder":       {"https://sso.example.com/realms/{realm}", false},
	} {
		t.Run(name, func(t *testing.T) {
			template, err := ParseTemplate(test.text)
			if (err == nil) != test.ok {
				t.Fatalf("got %v", err)
			}
			if test.ok && template.String() != test.text {
				t.Errorf("prints as %q", template)
			}
		})
	}
}

func testATenantIsOneSegmentByteForByte(t *testing.T) {
	for name, test := range map[string]struct {
		issuer string
		want   string // "" if it is none of the template's
	}{
		"a tenant":                       {"https://kc.test/realms/acme/x", "acme"},
		"letter case stays":              {"https://kc.test/realms/Acme/x", "Acme"},
		"dots, dashes, lines":            {"https://kc.test/realms/a.b-c_d~e/x", "a.b-c_d~e"},
		"63 bytes":                       {"https://kc.test/realms/" + strings.Repeat("a", 63) + "/x", strings.Repeat("a", 63)},
		"64 bytes":                       {"https://kc.test/realms/" + strings.Repeat("a", 64) + "/x", ""},
		"no tenant":                      {"https://kc.test/realms//x", ""},
		"the ends overlap":               {"https://kc.test/realms/x", ""},
		"a dot":                          {"https://kc.test/realms/./x", ""},
		"two dots":                       {"https://kc.test/realms/../x", ""},
		"three dots":                     {"https://kc.test/realms/.../x", "..."},
		"a slash":                        {"https://kc.test/realms/a/b/x", ""},
		"an escaped slash":               {"https://kc.test/realms/a%2fb/x", ""},
		"an escaped letter":              {"https://kc.test/realms/%61cme/x", ""},
		"a backslash":                    {`https://kc.test/realms/a\b/x`, ""},
		"a path parameter":               {"https://kc.test/realms/acme;v=1/x", ""},
		"a colon":                        {"https://kc.test/realms/a:b/x", ""},
		"a query":                        {"https://kc.test/realms/acme?/x", ""},
		"a fragment":                     {"https://kc.test/realms/acme#/x", ""},
		"a space":                        {"https://kc.test/realms/ac me/x", ""},
		"a line break":                   {"https://kc.test/realms/acme\n/x", ""},
		"a NUL":                          {"https://kc.test/realms/acme\x00/x", ""},
		"a letter beyond ASCII":          {"https://kc.test/realms/äcme/x", ""},
		"a brace":                        {"https://kc.test/realms/{tenant}/x", ""},
		"something after":                {"https://kc.test/realms/acme/x/", ""},
		"something before":               {" https://kc.test/realms/acme/x", ""},
		"another host":                   {"https://kc.test.evil.test/realms/acme/x", ""},
		"the host in other letters":      {"https://KC.test/realms/acme/x", ""},
		"another scheme":                 {"http://kc.test/realms/acme/x", ""},
		"the port that is meant anyway":  {"https://kc.test:443/realms/acme/x", ""},
		"another path in other letters":  {"https://kc.test/Realms/acme/x", ""},
		"nothing":                        {"", ""},
		"nothing before":                 {"acme/x", ""},
		"nothing after":                  {"https://kc.test/realms/acme", ""},
		"the template without its place": {"https://kc.test/realms/", ""},
	} {
		t.Run(name, func(t *testing.T) {
			template, err := ParseTemplate("https://kc.test/realms/{tenant}/x")
			if err != nil {
				t.Fatal(err)
			}
			tenant, ok := template.Tenant(test.issuer)
			if tenant != test.want || ok != (test.want != "") {
				t.Errorf("got %q, %t, want %q", tenant, ok, test.want)
			}
		})
	}
}

// Whatever an issuer that fits holds, a client asked for it goes to the template's
// host, and below its path.
func FuzzTemplate(f *testing.F) {
	for _, issuer := range []string{
		"https://kc.test/realms/acme", "https://kc.test/realms/..", "https://kc.test/realms/%2e%2e",
		"https://kc.test/realms/a;b", "https://kc.test/realms/@evil.test", "https://kc.test/realms/a/../b",
	} {
		f.Add("https://kc.test/realms/{tenant}", issuer)
		f.Add("https://kc.test/realms/{tenant}/certs", issuer+"/certs")
	}
	f.Fuzz(func(t *testing.T, text, issuer string) {
		template, err := ParseTemplate(text)
		if err != nil {
			return
		}
		tenant, ok := template.Tenant(issuer)
		if !ok {
			return
		}
		if template.URL(tenant) != issuer {
			t.Errorf("%q is not what %q says", template.URL(tenant), issuer)
		}
		got, err := url.Parse(issuer)
		if err != nil {
			t.Fatalf("no URL: %v", err)
		}
		want, err := url.Parse(template.URL("t"))
		if err != nil {
			t.Fatal(err)
		}
		if got.Scheme != want.Scheme || got.Host != want.Host || got.User != nil || got.RawQuery != "" || got.Fragment != "" {
			t.Errorf("%q leads to another host than %q", issuer, text)
		}
		if got.Path != got.EscapedPath() || hasDotSegment(got) ||
			strings.Count(got.Path, "/") != strings.Count(want.Path, "/") {
			t.Errorf("%q leads to another path than %q", issuer, text)
		}
	})
}

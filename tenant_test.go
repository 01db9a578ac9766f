package keycloakcacheauth

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func TestTenantSyntax(t *testing.T) {
	good := []string{"t1", "T1", "acme", "a", "a.b-c_d", "0", strings.Repeat("x", 63)}
	bad := []string{
		"", " ", "t1 ", " t1", "t1:user:A", "t1:", ":t1", "t1::", "*", "t?", "[a-z]", "{t2}", "t1}{t2",
		"t1\r\nX-Admin: 1", "t1%0d%0aX-Admin: 1", "t1\t", "té", "t1\x00", "t1, t2", "t1,t2", "t1;t2", "{env.SECRET}",
		"{http.request.header.Authorization}", "_meta", "__lock", ".", "..", "-x", "<script>", "t1/../t2", "t1\\t2",
		strings.Repeat("x", 64), strings.Repeat("x", 8192),
	}
	byDefault, err := newTenantRule("X-Tenant-ID", "", "", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range good {
		if !byDefault.valid(name) {
			t.Errorf("%q is refused", name)
		}
	}
	for _, name := range bad {
		if byDefault.valid(name) {
			t.Errorf("%q is accepted", name)
		}
	}
}

// Whatever an operator's pattern says, a tenant can be neither part of another
// key nor a template, and fits a key and a header.
func TestNoPatternAllowsDangerousTenants(t *testing.T) {
	anything, err := newTenantRule("X-Tenant-ID", "", "", `(?s).*`)
	if err != nil {
		t.Fatal(err)
	}
	if !anything.valid("_odd*[name]/?") {
		t.Error("the pattern is not used")
	}
	for _, name := range []string{"", "a:b", "{a", "a}", "a b", "a,b", "a\x00", "a\n", "é", "\x7f", strings.Repeat("x", 64)} {
		if anything.valid(name) {
			t.Errorf("%q is accepted", name)
		}
	}
	whole, err := newTenantRule("X-Tenant-ID", "", "", `t[0-9]|acme`)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"t1x", "xt1", "acmex", "xacme", "t1\nacme"} {
		if whole.valid(name) {
			t.Errorf("%q is accepted although only a part of it matches the pattern", name)
		}
	}
}

func TestTakeTenant(t *testing.T) {
	for name, tc := range map[string]struct {
		header, value, fallback string
		url                     string
		fields                  http.Header
		wantName                string
		wantFault               outcome
	}{
		"from the default header":             {fields: http.Header{"X-Tenant-Id": {"t1"}}, wantName: "t1"},
		"from another header":                 {header: "X-Org", fields: http.Header{"X-Org": {"t1"}, "X-Tenant-Id": {"t2"}}, wantName: "t1"},
		"keeps its case":                      {fields: http.Header{"X-Tenant-Id": {"TeNaNt"}}, wantName: "TeNaNt"},
		"missing":                             {wantFault: outcomeTenantMissing},
		"missing, with a default":             {fallback: "t0", wantName: "t0"},
		"empty":                               {fields: http.Header{"X-Tenant-Id": {""}}, wantFault: outcomeTenantInvalid},
		"empty, with a default":               {fallback: "t0", fields: http.Header{"X-Tenant-Id": {""}}, wantFault: outcomeTenantInvalid},
		"malformed":                           {fields: http.Header{"X-Tenant-Id": {"t1:x"}}, wantFault: outcomeTenantInvalid},
		"malformed, with a default":           {fallback: "t0", fields: http.Header{"X-Tenant-Id": {"t 1"}}, wantFault: outcomeTenantInvalid},
		"two fields":                          {fields: http.Header{"X-Tenant-Id": {"t1", "t2"}}, wantFault: outcomeTenantInvalid},
		"two fields alike":                    {fields: http.Header{"X-Tenant-Id": {"t1", "t1"}}, wantFault: outcomeTenantInvalid},
		"an alias alone is no tenant":         {fields: http.Header{"X_Tenant_Id": {"t1"}}, wantFault: outcomeTenantMissing},
		"from the host":                       {value: "{http.request.host.labels.2}", url: "http://acme.example.com/", wantName: "acme"},
		"from the host, which lacks a label":  {value: "{http.request.host.labels.2}", url: "http://example.com/", wantFault: outcomeTenantMissing},
		"from the path":                       {value: "{http.request.uri.path.0}", url: "http://h/t1/x", wantName: "t1"},
		"from the path, encoded":              {value: "{http.request.uri.path.0}", url: "http://h/t%3A1/x", wantFault: outcomeTenantInvalid},
		"from a path that goes up":            {value: "{http.request.uri.path.0}", url: "http://h/t1/../t2/x", wantFault: outcomeTenantInvalid},
		"from a path that goes up, encoded":   {value: "{http.request.uri.path.0}", url: "http://h/t1/%2e%2E/t2/x", wantFault: outcomeTenantInvalid},
		"from a path with an encoded slash":   {value: "{http.request.uri.path.0}", url: "http://h/t1%2Fx/y", wantFault: outcomeTenantInvalid},
		"from a path with a backslash":        {value: "{http.request.uri.path.0}", url: "http://h/t1/..%5Ct2", wantFault: outcomeTenantInvalid},
		"from a path with an empty segment":   {value: "{http.request.uri.path.0}", url: "http://h/t1//t2", wantFault: outcomeTenantInvalid},
		"from a path with a slash at its end": {value: "{http.request.uri.path.0}", url: "http://h/t1/x/", wantName: "t1"},
		"from the query":                      {value: "{http.request.uri.query.tenant}", url: "http://h/?tenant=t1", wantName: "t1"},
		"from the query, twice":               {value: "{http.request.uri.query.tenant}", url: "http://h/?tenant=t1&tenant=t2", wantFault: outcomeTenantInvalid},
		"with text around the placeholder":    {value: "org-{http.request.host.labels.2}", url: "http://acme.example.com/", wantName: "org-acme"},
		"a placeholder is not expanded twice": {value: "{http.request.uri.query.tenant}", url: "http://h/?tenant=%7Benv.PATH%7D", wantFault: outcomeTenantInvalid},
		"from an owned header, read in time":  {value: "{http.request.header.X-Tenant-ID}", fields: http.Header{"X-Tenant-Id": {"t1"}}, wantName: "t1"},
		"X-Forwarded-Host does not count":     {value: "{http.request.host.labels.2}", url: "http://acme.example.com/", fields: http.Header{"X-Forwarded-Host": {"t2.example.com"}}, wantName: "acme"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.header == "" {
				tc.header = "X-Tenant-ID"
			}
			if tc.url == "" {
				tc.url = "http://h/"
			}
			rule, err := newTenantRule(tc.header, tc.value, tc.fallback, "")
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest(http.MethodGet, tc.url, nil)
			if tc.fields != nil {
				r.Header = tc.fields
			}
			repl := caddy.NewReplacer()
			r = caddyhttp.PrepareRequest(r, repl, nil, nil)
			got := rule.take(r, repl)
			if got.name != tc.wantName || got.fault != tc.wantFault {
				t.Errorf("got %+v, want name %q and fault %q", got, tc.wantName, tc.wantFault)
			}
		})
	}
}

package keycloakcacheauth

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
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
		"from the default header":              {fields: http.Header{"X-Tenant-Id": {"t1"}}, wantName: "t1"},
		"from another header":                  {header: "X-Org", fields: http.Header{"X-Org": {"t1"}, "X-Tenant-Id": {"t2"}}, wantName: "t1"},
		"keeps its case":                       {fields: http.Header{"X-Tenant-Id": {"TeNaNt"}}, wantName: "TeNaNt"},
		"missing":                              {wantFault: outcomeTenantMissing},
		"missing, with a default":              {fallback: "t0", wantName: "t0"},
		"empty":                                {fields: http.Header{"X-Tenant-Id": {""}}, wantFault: outcomeTenantInvalid},
		"empty, with a default":                {fallback: "t0", fields: http.Header{"X-Tenant-Id": {""}}, wantFault: outcomeTenantInvalid},
		"malformed":                            {fields: http.Header{"X-Tenant-Id": {"t1:x"}}, wantFault: outcomeTenantInvalid},
		"malformed, with a default":            {fallback: "t0", fields: http.Header{"X-Tenant-Id": {"t 1"}}, wantFault: outcomeTenantInvalid},
		"two fields":                           {fields: http.Header{"X-Tenant-Id": {"t1", "t2"}}, wantFault: outcomeTenantInvalid},
		"two fields alike":                     {fields: http.Header{"X-Tenant-Id": {"t1", "t1"}}, wantFault: outcomeTenantInvalid},
		"an alias alone is no tenant":          {fields: http.Header{"X_Tenant_Id": {"t1"}}, wantFault: outcomeTenantMissing},
		"from the host":                        {value: "{http.request.host.labels.2}", url: "http://acme.example.com/", wantName: "acme"},
		"from the host, which lacks a label":   {value: "{http.request.host.labels.2}", url: "http://example.com/", wantFault: outcomeTenantMissing},
		"from the path":                        {value: "{http.request.uri.path.0}", url: "http://h/t1/x", wantName: "t1"},
		"from the path, encoded":               {value: "{http.request.uri.path.0}", url: "http://h/t%3A1/x", wantFault: outcomeTenantInvalid},
		"from a path that goes up":             {value: "{http.request.uri.path.0}", url: "http://h/t1/../t2/x", wantFault: outcomeTenantInvalid},
		"from a path that goes up, encoded":    {value: "{http.request.uri.path.0}", url: "http://h/t1/%2e%2E/t2/x", wantFault: outcomeTenantInvalid},
		"from a path with an encoded slash":    {value: "{http.request.uri.path.0}", url: "http://h/t1%2Fx/y", wantFault: outcomeTenantInvalid},
		"from a path with a backslash":         {value: "{http.request.uri.path.0}", url: "http://h/t1/..%5Ct2", wantFault: outcomeTenantInvalid},
		"from a path with an empty segment":    {value: "{http.request.uri.path.0}", url: "http://h/t1//t2", wantFault: outcomeTenantInvalid},
		"from a path with a slash at its end":  {value: "{http.request.uri.path.0}", url: "http://h/t1/x/", wantName: "t1"},
		"from the query":                       {value: "{http.request.uri.query.tenant}", url: "http://h/?tenant=t1", wantName: "t1"},
		"from the query, once of two":          {value: "{http.request.uri.query.tenant}", url: "http://h/?x=1&tenant=t1&y=2", wantName: "t1"},
		"from the query, encoded":              {value: "{http.request.uri.query.tenant}", url: "http://h/?ten%61nt=t%31", wantName: "t1"},
		"from the query, missing":              {value: "{http.request.uri.query.tenant}", url: "http://h/?x=1", wantFault: outcomeTenantMissing},
		"from the query, missing, a default":   {value: "{http.request.uri.query.tenant}", fallback: "t0", url: "http://h/?x=1", wantName: "t0"},
		"from the query, empty":                {value: "{http.request.uri.query.tenant}", fallback: "t0", url: "http://h/?tenant=", wantFault: outcomeTenantInvalid},
		"from the query, without a value":      {value: "{http.request.uri.query.tenant}", fallback: "t0", url: "http://h/?tenant", wantFault: outcomeTenantInvalid},
		"from the query, badly encoded":        {value: "{http.request.uri.query.tenant}", fallback: "t0", url: "http://h/?tenant=%zz", wantFault: outcomeTenantInvalid},
		"from the query, once with a space":    {value: "{http.request.uri.query.tenant}", url: "http://h/?tenant=t1&%20tenant=t2", wantFault: outcomeTenantInvalid},
		"from the query, once as a list":       {value: "{http.request.uri.query.tenant}", url: "http://h/?tenant=t1&tenant[]=t2", wantFault: outcomeTenantInvalid},
		"from a query that Go does not read":   {value: "{http.request.uri.query.tenant}", fallback: "t0", url: "http://h/?tenant=t1" + strings.Repeat("&", 20_000), wantFault: outcomeTenantInvalid},
		"from a cookie that Go passes over":    {value: "{http.request.cookie.org}", fields: http.Header{"Cookie": {`org=t1; org="\164\062"`}}, wantFault: outcomeTenantInvalid},
		"from more cookies than Go takes":      {value: "{http.request.cookie.org}", fallback: "t0", fields: http.Header{"Cookie": {"org=t1" + strings.Repeat(";a", 5000)}}, wantFault: outcomeTenantInvalid},
		"from the query, once badly encoded":   {value: "{http.request.uri.query.tenant}", url: "http://h/?tenant=t1&tenant=t2%", wantFault: outcomeTenantInvalid},
		"from the query, a bad name":           {value: "{http.request.uri.query.tenant}", url: "http://h/?tenant=t1&ten%ant=t2", wantFault: outcomeTenantInvalid},
		"from the query, once with semicolon":  {value: "{http.request.uri.query.tenant}", url: "http://h/?tenant=t1&x=1;tenant=t2", wantFault: outcomeTenantInvalid},
		"from the query, with a semicolon":     {value: "{http.request.uri.query.tenant}", fallback: "t0", url: "http://h/?tenant=t1;x=1", wantFault: outcomeTenantInvalid},
		"from the query, in two cases":         {value: "{http.request.uri.query.tenant}", url: "http://h/?tenant=t1&Tenant=t2", wantFault: outcomeTenantInvalid},
		"from the query, alike twice":          {value: "{http.request.uri.query.tenant}", url: "http://h/?tenant=t1&ten%61nt=t1", wantFault: outcomeTenantInvalid},
		"TN-012 from the query, 8 KB":          {value: "{http.request.uri.query.tenant}", url: "http://h/?tenant=" + strings.Repeat("x", 8192), wantFault: outcomeTenantInvalid},
		"from the query, not UTF-8":            {value: "{http.request.uri.query.tenant}", url: "http://h/?tenant=t%ff", wantFault: outcomeTenantInvalid},
		"from the query, NUL":                  {value: "{http.request.uri.query.tenant}", url: "http://h/?tenant=t1%00", wantFault: outcomeTenantInvalid},
		"keeps its case in the query":          {value: "{http.request.uri.query.tenant}", url: "http://h/?tenant=Acme", wantName: "Acme"},
		"from the query, twice":                {value: "{http.request.uri.query.tenant}", url: "http://h/?tenant=t1&tenant=t2", wantFault: outcomeTenantInvalid},
		"with text around the placeholder":     {value: "org-{http.request.host.labels.2}", url: "http://acme.example.com/", wantName: "org-acme"},
		"a placeholder is not expanded twice":  {value: "{http.request.uri.query.tenant}", url: "http://h/?tenant=%7Benv.PATH%7D", wantFault: outcomeTenantInvalid},
		"from a path before a rewrite":         {value: "{http.request.orig_uri.path.0}", url: "http://h/t1/x", wantName: "t1"},
		"one that went up before a rewrite":    {value: "{http.request.orig_uri.path.0}", url: "http://h/t1/../t2", wantFault: outcomeTenantInvalid},
		"from the path, which has none":        {value: "{http.request.uri.path.0}", url: "http://h/", wantFault: outcomeTenantMissing},
		"TN-012 from the path, 8 KB":           {value: "{http.request.uri.path.0}", url: "http://h/" + strings.Repeat("x", 8192), wantFault: outcomeTenantInvalid},
		"from the host, with a dot at its end": {value: "{http.request.host.labels.2}", url: "http://acme.example.com./", wantFault: outcomeTenantInvalid},
		"from the host, with an empty label":   {value: "{http.request.host.labels.2}", fallback: "t0", url: "http://.example.com/", wantFault: outcomeTenantInvalid},
		"TN-012 from the host, too long":       {value: "{http.request.host.labels.2}", url: "http://" + strings.Repeat("x", 64) + ".example.com/", wantFault: outcomeTenantInvalid},
		"from a header's placeholder, twice":   {value: "{http.request.header.X-Org}", fields: http.Header{"X-Org": {"t1", "t1"}}, wantFault: outcomeTenantInvalid},
		"from a header's placeholder, empty":   {value: "{http.request.header.X-Org}", fallback: "t0", fields: http.Header{"X-Org": {""}}, wantFault: outcomeTenantInvalid},
		"from a cookie":                        {value: "{http.request.cookie.org}", fields: http.Header{"Cookie": {"org=t1; x=1"}}, wantName: "t1"},
		"from a cookie, twice":                 {value: "{http.request.cookie.org}", fields: http.Header{"Cookie": {"org=t1; org=t2"}}, wantFault: outcomeTenantInvalid},
		"from a cookie, in two cases":          {value: "{http.request.cookie.org}", fields: http.Header{"Cookie": {"org=t1", "ORG=t2"}}, wantFault: outcomeTenantInvalid},
		"from a cookie, empty":                 {value: "{http.request.cookie.org}", fallback: "t0", fields: http.Header{"Cookie": {"org="}}, wantFault: outcomeTenantInvalid},
		"from an owned header, read in time":   {value: "{http.request.header.X-Tenant-ID}", fields: http.Header{"X-Tenant-Id": {"t1"}}, wantName: "t1"},
		"X-Forwarded-Host does not count":      {value: "{http.request.host.labels.2}", url: "http://acme.example.com/", fields: http.Header{"X-Forwarded-Host": {"t2.example.com"}}, wantName: "acme"},
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

// tenant_aliases: what a request says is looked up as it is, hosts whatever
// their case, and what the upstream is told is always the tenant.
func TestTenantAliases(t *testing.T) {
	hosts := map[string]string{"shop.example.com": "t1", "Localhost": "T2"}
	for name, tc := range map[string]struct {
		tenant    string
		aliases   map[string]string
		open      bool
		fallback  string
		url       string
		fields    http.Header
		wantName  string
		wantFault outcome
	}{
		"a host":                         {"{http.request.host}", hosts, false, "", "http://shop.example.com/", nil, "t1", ""},
		"a host with its port":           {"{http.request.host}", hosts, false, "", "http://shop.example.com:8443/", nil, "t1", ""},
		"a host in capitals":             {"{http.request.host}", hosts, false, "", "http://SHOP.example.COM/", nil, "t1", ""},
		"listed in capitals":             {"{http.request.host}", hosts, false, "", "http://localhost/", nil, "T2", ""},
		"another host":                   {"{http.request.host}", hosts, false, "", "http://evil.example.com/", nil, "", outcomeTenantUnknown},
		"another host, with a default":   {"{http.request.host}", hosts, false, "t0", "http://evil.example.com/", nil, "", outcomeTenantUnknown},
		"a host within a listed one":     {"{http.request.host}", hosts, false, "", "http://x.shop.example.com/", nil, "", outcomeTenantUnknown},
		"a host that is a tenant's name": {"{http.request.host}", hosts, false, "", "http://t1/", nil, "", outcomeTenantUnknown},
		"a host with a dot at its end":   {"{http.request.host}", hosts, false, "", "http://shop.example.com./", nil, "", outcomeTenantInvalid},
		"a host that only looks listed":  {"{http.request.host}", map[string]string{"kiosk.example.com": "t1"}, false, "", "http://\u212Aiosk.example.com/", nil, "", outcomeTenantInvalid},
		"a value longer than tenants":    {"", map[string]string{"old": "t1"}, false, "", "http://h/", http.Header{"X-Tenant-Id": {strings.Repeat("x", 70)}}, "", outcomeTenantUnknown},
		"another host, open":             {"{http.request.host}", hosts, true, "", "http://evil.example.com/", nil, "evil.example.com", ""},
		"X-Forwarded-Host does not count": {
			"{http.request.host}", hosts, false, "", "http://shop.example.com/",
			http.Header{"X-Forwarded-Host": {"localhost"}},
			"t1", "",
		},
		"a header":                       {"", map[string]string{"old": "t1"}, false, "", "http://h/", http.Header{"X-Tenant-Id": {"old"}}, "t1", ""},
		"a header has a case":            {"", map[string]string{"old": "t1"}, false, "", "http://h/", http.Header{"X-Tenant-Id": {"Old"}}, "", outcomeTenantUnknown},
		"a header, two values":           {"", map[string]string{"old": "t1"}, true, "", "http://h/", http.Header{"X-Tenant-Id": {"old", "old"}}, "", outcomeTenantInvalid},
		"a tenant itself":                {"", map[string]string{"old": "t1"}, false, "", "http://h/", http.Header{"X-Tenant-Id": {"t1"}}, "", outcomeTenantUnknown},
		"a tenant itself, open":          {"", map[string]string{"old": "t1"}, true, "", "http://h/", http.Header{"X-Tenant-Id": {"t1"}}, "t1", ""},
		"no tenant, with a default":      {"", map[string]string{"old": "t1"}, false, "t0", "http://h/", http.Header{}, "t0", ""},
		"what could be no tenant, open":  {"", map[string]string{"old": "t1"}, true, "", "http://h/", http.Header{"X-Tenant-Id": {"a:b"}}, "", outcomeTenantInvalid},
		"what could be no tenant, alias": {"", map[string]string{"a:b/c": "t1"}, false, "", "http://h/", http.Header{"X-Tenant-Id": {"a:b/c"}}, "t1", ""},
		"an alias is not looked up again": {
			"",
			map[string]string{"a": "b", "b": "c"},
			false, "", "http://h/",
			http.Header{"X-Tenant-Id": {"a"}},
			"b", "",
		},
		"a query":                     {"{http.request.uri.query.org}", map[string]string{"old": "t1"}, false, "", "http://h/?org=old", nil, "t1", ""},
		"a query, joined by Caddy":    {"{http.request.uri.query.org}", map[string]string{"old": "t1"}, true, "", "http://h/?org=old&org=old", nil, "", outcomeTenantInvalid},
		"a path":                      {"{http.request.uri.path.0}", map[string]string{"old": "t1"}, false, "", "http://h/old/x", nil, "t1", ""},
		"a placeholder stays a value": {"{http.request.uri.query.org}", map[string]string{"old": "t1"}, false, "", "http://h/?org=%7Benv.PATH%7D", nil, "", outcomeTenantInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			h := &Handler{Tenant: tc.tenant, TenantDefault: tc.fallback, TenantAliases: tc.aliases, TenantAliasesOpen: tc.open}
			rule, err := h.newTenantRule()
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest(http.MethodGet, tc.url, nil)
			if tc.fields != nil {
				r.Header = tc.fields
			}
			repl := caddy.NewReplacer()
			r = caddyhttp.PrepareRequest(r, repl, nil, nil)
			if got := rule.take(r, repl); got.name != tc.wantName || got.fault != tc.wantFault {
				t.Errorf("got %+v, want name %q and fault %q", got, tc.wantName, tc.wantFault)
			}
		})
	}
}

// TN-018: the upstream never sees the alias, under whatever header.
func TestUpstreamSeesTheTenantNotItsAlias(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) {
		h.TenantHeader, h.TenantAliases = "X-Org", map[string]string{"old": "t1"}
	}))
	got := send(t, h, http.Header{"Authorization": {"Bearer " + s.token("alice")}, "X-Org": {"old"}, "X-Tenant-Id": {"t2"}})
	if got.status != 0 || got.request.Get("X-Org") != "t1" || got.request.Get("X-Tenant-Id") != "t1" || got.placeholder("http.auth.user.tenant") != "t1" {
		t.Errorf("status %d, headers %v", got.status, got.request)
	}
	got = send(t, h, http.Header{"Authorization": {"Bearer " + s.token("alice")}, "X-Org": {"t1"}})
	if got.status != http.StatusForbidden || s.source.called() != 1 {
		t.Errorf("what is not listed: status %d, and the resolver was asked %d times", got.status, s.source.called())
	}
	got = send(t, h, http.Header{"Authorization": {"Bearer x.y.z"}, "X-Org": {"t1"}})
	if got.status != http.StatusUnauthorized {
		t.Errorf("a bad token and an unknown tenant: status %d", got.status)
	}
}

// The places of a tenant are looked at also where a claim is part of it.
func TestTenantOfAClaimAndTheRequest(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) {
		h.Tenant = "{http.request.uri.query.prefix}{http.auth.user.claims.number}"
	}))
	send1 := func(query string) answered {
		r := httptest.NewRequest(http.MethodGet, "http://site.example/?"+query, nil)
		r.Header = bearer(s.token("alice", kctest.Claim("number", "1")), "")
		return sendRequest(t, h, r)
	}
	if got := send1("prefix=t"); got.status != 0 {
		t.Errorf("status %d", got.status)
	}
	if got := send1("prefix=t&prefix=%zz"); got.status != http.StatusBadRequest || s.source.called() != 1 {
		t.Errorf("status %d, want 400, and no look-up", got.status)
	}
}

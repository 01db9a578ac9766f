package httpresolver

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func TestWhatIsAsked(t *testing.T) {
	t.Setenv("KCA_TEST_TOKEN", "t0ken")
	claims := map[string]member.Value{"email": member.Text("a&b=c@d"), "groups": member.List("x y", "z"), "number": member.Text("4711")}
	tests := map[string]struct {
		config string
		target string
		body   string
	}{
		"in the path":            {path, "/members/acme/k1", ""},
		"parts of a segment":     {`{"url":"URL/u-{kc_id}.json/{tenant}"}`, "/u-k1.json/acme", ""},
		"in the query":           {`{"url":"URL/m?tenant={tenant}&kc_id={kc_id}&issuer={issuer}"}`, "/m?tenant=acme&kc_id=k1&issuer=https%3A%2F%2Fsso.example.com%2Frealms%2Fmain", ""},
		"claims":                 {`{"url":"URL/m/{claim.number}?t={tenant}&k={kc_id}&e={claim.email}&g={claim.groups}&fixed=1&n={claim.none}"}`, "/m/4711?t=acme&k=k1&e=a%26b%3Dc%40d&g=x+y&g=z&fixed=1", ""},
		"with a slash at theend": {`{"url":"URL/{tenant}/{kc_id}/"}`, "/acme/k1/", ""},
		"a placeholder":          {`{"url":"URL/{tenant}/{kc_id}?key={env.KCA_TEST_TOKEN}"}`, "/acme/k1?key=t0ken", ""},
		"a query alone":          {`{"url":"URL?t={tenant}&k={kc_id}"}`, "/?t=acme&k=k1", ""},
		"a body":                 {`{"url":"URL/m","method":"POST"}`, "/m", `{"tenant":"acme","kc_id":"k1","issuer":"https://sso.example.com/realms/main","claims":{}}`},
		"a body with claims":     {`{"url":"URL/m","method":"POST","send_claims":["email","groups","none"]}`, "/m", `{"tenant":"acme","kc_id":"k1","issuer":"https://sso.example.com/realms/main","claims":{"email":"a\u0026b=c@d","groups":["x y","z"]}}`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, record(alice))
			q := aliceAtAcme
			q.Claims = claims
			if _, err := mustLoad(t, a.URL, test.config).Resolve(t.Context(), q); err != nil {
				t.Fatal(err)
			}
			got := a.requests()[0]
			if got.target != test.target || got.body != test.body {
				t.Errorf("got  %s %s\nwant %s %s", got.target, got.body, test.target, test.body)
			}
			if got.header.Get("Accept") != "application/json" || (got.header.Get("Content-Type") == "application/json") != (test.body != "") {
				t.Errorf("the header is %v", got.header)
			}
		})
	}
}

// Whatever a token says, it is the application's URL of the user that is asked for.
func TestValuesCannotLeadToAnotherURL_RS013(t *testing.T) {
	const inQuery = `{"url":"URL/m?t={tenant}&k={kc_id}"}`
	for name, test := range map[string]struct{ kcID, path, query string }{
		"SQL":                      {"' OR '1'='1", "/members/acme/%27%20OR%20%271%27=%271", "/m?t=acme&k=%27+OR+%271%27%3D%271"},
		"another parameter":        {"k1&t=other", "/members/acme/k1&t=other", "/m?t=acme&k=k1%26t%3Dother"},
		"a query":                  {"k1?x=y#z", "/members/acme/k1%3Fx=y%23z", "/m?t=acme&k=k1%3Fx%3Dy%23z"},
		"an encoded slash":         {"..%2f..%2fother", "/members/acme/..%252f..%252fother", "/m?t=acme&k=..%252f..%252fother"},
		"a parameter of ours":      {"{tenant}", "/members/acme/%7Btenant%7D", "/m?t=acme&k=%7Btenant%7D"},
		"a placeholder of Caddy's": {"{env.HOME}", "/members/acme/%7Benv.HOME%7D", "/m?t=acme&k=%7Benv.HOME%7D"},
		"not ASCII":                {"é", "/members/acme/%C3%A9", "/m?t=acme&k=%C3%A9"},
		"a segment of one dot":     {".", "", "/m?t=acme&k=."},
		"a segment of two dots":    {"..", "", "/m?t=acme&k=.."},
		"a slash":                  {"k1/../k2", "", "/m?t=acme&k=k1%2F..%2Fk2"},
		"a backslash":              {`k1\..\k2`, "", "/m?t=acme&k=k1%5C..%5Ck2"},
		"a newline":                {"k1\nk2", "", "/m?t=acme&k=k1%0Ak2"},
		"nothing":                  {"", "", "/m?t=acme&k="},
	} {
		t.Run(name, func(t *testing.T) {
			for config, want := range map[string]string{path: test.path, inQuery: test.query} {
				a := newApp(t, record(alice))
				q := aliceAtAcme
				q.KCID = test.kcID
				_, err := mustLoad(t, a.URL, config).Resolve(t.Context(), q)
				got := a.requests()
				switch {
				case want == "" && (!errors.Is(err, member.ErrUnknown) || len(got) > 0):
					t.Errorf("asked for %v (%v), want nothing", got, err)
				case want != "" && (err != nil || got[0].target != want):
					t.Errorf("asked for %v (%v), want %s", got, err, want)
				}
			}
		})
	}
}

func TestWhoAsksIsProven(t *testing.T) {
	t.Setenv("KCA_TEST_TOKEN", "t0ken")
	a := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "s"})
		w.Header().Set("X-User-Id", "evil") // RS-016: nothing of the answer's header is used
		record(alice)(w, r)
	})
	r := mustLoad(t, a.URL, `{"url":"URL/m/{tenant}/{kc_id}","bearer":"{env.KCA_TEST_TOKEN}","headers":{"x-api-version":"2","Host":"app.internal"}}`)
	for range 2 {
		if _, err := r.Resolve(t.Context(), aliceAtAcme); err != nil {
			t.Fatal(err)
		}
	}
	for _, got := range a.requests() {
		if got.header.Get("Authorization") != "Bearer t0ken" || got.header.Get("X-Api-Version") != "2" || got.host != "app.internal" {
			t.Errorf("host %s, header %v", got.host, got.header)
		}
		if got.header.Get("Cookie") != "" || got.header.Get("Accept-Encoding") != "" {
			t.Errorf("the header is %v", got.header)
		}
	}
}

func TestOnUnknown(t *testing.T) {
	const config = `{"url":"URL/m/{tenant}/{kc_id}","on_unknown":"URL/make","send_claims":["email"],"hmac_secret":"s"}`
	tests := map[string]struct {
		find, create []http.HandlerFunc
		kcID         string
		want         string // "" for a member
		requests     int
	}{
		"made": {[]http.HandlerFunc{status(404)}, []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(201)
			_, _ = io.WriteString(w, alice)
		}}, "k1", "", 2},
		"made, with 200":             {[]http.HandlerFunc{status(404)}, []http.HandlerFunc{record(alice)}, "k1", "", 2},
		"not to be a member":         {[]http.HandlerFunc{status(404)}, []http.HandlerFunc{status(403)}, "k1", "no such member", 2},
		"not to be one, with 404":    {[]http.HandlerFunc{status(404)}, []http.HandlerFunc{status(404)}, "k1", "no such member", 2},
		"made by another meanwhile":  {[]http.HandlerFunc{status(404), record(alice)}, []http.HandlerFunc{status(409)}, "k1", "", 3},
		"exists and is not found":    {[]http.HandlerFunc{status(404), status(404)}, []http.HandlerFunc{status(409)}, "k1", "no such member", 3},
		"a record without id":        {[]http.HandlerFunc{status(404)}, []http.HandlerFunc{record(`{}`)}, "k1", "on_unknown: the answer has no", 2},
		"it fails":                   {[]http.HandlerFunc{status(404)}, []http.HandlerFunc{status(500)}, "k1", "on_unknown: the application answers 500", 2},
		"the look-up fails":          {[]http.HandlerFunc{status(500)}, nil, "k1", "answers 500", 1},
		"the member is known":        {[]http.HandlerFunc{record(alice)}, nil, "k1", "", 1},
		"several records":            {[]http.HandlerFunc{status(409)}, nil, "k1", "more than one member", 1},
		"a user who can't be asked":  {nil, nil, "../k1", "no such member", 0},
		"a user of an empty segment": {nil, nil, "", "no such member", 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, func(w http.ResponseWriter, r *http.Request) {
				next := &test.find
				if r.URL.Path == "/make" {
					next = &test.create
				}
				(*next)[0](w, r)
				*next = (*next)[1:]
			})
			q := aliceAtAcme
			q.KCID = test.kcID
			q.Claims = map[string]member.Value{"email": member.Text("a@b"), "other": member.Text("x")}
			m, err := mustLoad(t, a.URL, config).Resolve(t.Context(), q)
			if test.want == "" && (err != nil || m.ID != "4711") {
				t.Errorf("got %+v, %v", m, err)
			}
			if test.want != "" {
				checkError(t, err, test.want)
			}
			if errors.Is(err, member.ErrUnknown) != (test.want == "no such member") {
				t.Errorf("got %v", err)
			}
			requests := a.requests()
			if len(requests) != test.requests {
				t.Fatalf("%d requests, want %d", len(requests), test.requests)
			}
			if len(requests) > 1 {
				const want = `{"tenant":"acme","kc_id":"k1","issuer":"https://sso.example.com/realms/main","claims":{"email":"a@b"}}`
				if got := requests[1]; got.method != "POST" || got.body != want || got.header.Get("X-Caddy-Signature") == "" {
					t.Errorf("asked to make %+v", got)
				}
			}
		})
	}
}

func TestCheck(t *testing.T) {
	const config = `{"url":"URL/m/{claim.c}/{tenant}/{kc_id}","on_unknown":"URL/make"}`
	tests := map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"the application answers":        {status(404), ""},
		"it knows everybody":             {record(alice), "whom there cannot be"},
		"it does not let this server":    {status(401), "check bearer, hmac"},
		"it sends something else":        {record("[]"), "not one JSON object"},
		"it would have redirected there": {status(302), "redirects"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, test.answer)
			err := mustLoad(t, a.URL, config).Check(t.Context())
			if test.want == "" && err != nil {
				t.Error(err)
			}
			if test.want != "" {
				checkError(t, err, test.want)
			}
			if requests := a.requests(); len(requests) != 1 || requests[0].method != "GET" {
				t.Errorf("asked %+v", requests)
			}
		})
	}
}

func TestClaimsAndIssuersAreDeclared(t *testing.T) {
	tests := map[string]struct {
		config string
		claims []string
		tells  bool
	}{
		"nothing":            {`{"url":"https://a/{tenant}/{kc_id}"}`, nil, false},
		"all of them":        {`{"url":"https://a/{tenant}/{kc_id}?a={claim.b.c}&b={claim.a}","on_unknown":"https://a/{claim.z}","send_claims":["a","q"]}`, []string{"a", "b.c", "q", "z"}, false},
		"the issuer":         {`{"url":"https://a/{tenant}/{kc_id}?i={issuer}"}`, nil, true},
		"a body":             {`{"url":"https://a/","method":"POST"}`, nil, true},
		"issuer of creation": {`{"url":"https://a/{tenant}/{kc_id}","on_unknown":"https://a/"}`, nil, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := mustLoad(t, "", test.config)
			if got := r.Claims(); !slices.Equal(got, test.claims) {
				t.Errorf("claims are %q, want %q", got, test.claims)
			}
			if r.TellsIssuers() != test.tells {
				t.Errorf("it tells issuers: %v", !test.tells)
			}
		})
	}
}

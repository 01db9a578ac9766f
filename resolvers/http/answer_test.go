package httpresolver

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func TestResolveReadsTheRecord(t *testing.T) {
	tests := map[string]struct {
		answer string
		want   member.Member
	}{
		"a member": {alice, member.Member{KCID: "k1", Tenant: "acme", Active: true, ID: "4711", Attributes: map[string]member.Value{
			"roles": member.List("editor"), "plan": member.Text("gold"),
		}}},
		"an inactive member, RS-010":   {`{"kc_id":"k1","tenant":"acme","active":false,"id":"x"}`, member.Member{KCID: "k1", Tenant: "acme", ID: "x"}},
		"not known to be active":       {`{"kc_id":"k1","tenant":"acme","active":null,"id":"x"}`, member.Member{KCID: "k1", Tenant: "acme", ID: "x"}},
		"the issuer":                   {`{"kc_id":"k1","tenant":"acme","active":true,"id":"x","issuer":"i"}`, member.Member{KCID: "k1", Tenant: "acme", Active: true, ID: "x", Issuer: "i"}},
		"a tenant and id of 20 digits": {`{"kc_id":"k1","tenant":12345678901234567890,"active":true,"id":-9007199254740993}`, member.Member{KCID: "k1", Tenant: "12345678901234567890", Active: true, ID: "-9007199254740993"}},
		"another user, RS-015":         {`{"kc_id":"B","tenant":"other","active":true,"id":"x"}`, member.Member{KCID: "B", Tenant: "other", Active: true, ID: "x"}},
		"attributes of all kinds": {
			`{"kc_id":"k1","tenant":"acme","active":true,"id":"x","n":1e3,"b":false,"none":null,"list":["a",2,true],"empty":[],"roles":"editor","text":"{env.HOME}\r\n","ü":1}`,
			member.Member{},
		},
		"attributes of all kinds but one": {
			`{"kc_id":"k1","tenant":"acme","active":true,"id":"x","n":1e3,"b":false,"none":null,"list":["a",2,true],"empty":[],"roles":"editor","text":"{env.HOME}\r\n"}`,
			member.Member{KCID: "k1", Tenant: "acme", Active: true, ID: "x", Attributes: map[string]member.Value{
				"n": member.Text("1e3"), "b": member.Text("false"), "list": member.List("a", "2", "true"), "empty": member.List(),
				"roles": member.List("editor"), "text": member.Text("{env.HOME}\r\n"),
			}},
		},
		"roles that are an empty text": {`{"kc_id":"k1","tenant":"acme","active":true,"id":"x","roles":""}`, member.Member{KCID: "k1", Tenant: "acme", Active: true, ID: "x", Attributes: map[string]member.Value{"roles": member.List()}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, record(test.answer))
			got, err := mustLoad(t, a.URL, path).Resolve(t.Context(), aliceAtAcme)
			if test.want.KCID == "" {
				checkError(t, err, "none of an attribute")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.KCID != test.want.KCID || got.Tenant != test.want.Tenant || got.Active != test.want.Active || got.ID != test.want.ID || got.Issuer != test.want.Issuer {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			if !maps.EqualFunc(got.Attributes, test.want.Attributes, member.Value.Equal) {
				t.Errorf("attributes are %v, want %v", got.Attributes, test.want.Attributes)
			}
		})
	}
}

func TestRecordsThatAreRefused(t *testing.T) {
	with := func(old, replaced string) string { return strings.Replace(alice, old, replaced, 1) }
	tests := map[string]struct{ answer, want string }{
		"no kc_id, RS-012":              {with(`"kc_id":"k1",`, ``), "no kc_id; add it"},
		"no tenant, RS-012":             {with(`"tenant":"acme",`, ``), "no tenant; add it"},
		"no active, RS-012":             {with(`"active":true,`, ``), "no active; add it"},
		"no id, RS-012":                 {with(`"id":4711,`, ``), "no id; add it"},
		"a null kc_id, RS-009":          {with(`"k1"`, `null`), "kc_id is neither a text nor an integer"},
		"a null tenant, RS-009":         {with(`"acme"`, `null`), "tenant is neither"},
		"a null id, RS-009":             {with(`4711`, `null`), "id is neither"},
		"a null issuer, RS-009":         {with(`"plan":"gold"`, `"issuer":null`), "issuer is neither"},
		"an empty kc_id, RS-009":        {with(`"k1"`, `""`), "kc_id is empty"},
		"an id with a fraction":         {with(`4711`, `4711.0`), "id is neither"},
		"an id with an exponent":        {with(`4711`, `1e3`), "id is neither"},
		"an id that is true":            {with(`4711`, `true`), "id is neither"},
		"a kc_id that is a list":        {with(`"k1"`, `["k1"]`), "kc_id is neither"},
		"an active that is 1":           {with(`true`, `1`), "active is neither true, false nor null"},
		"an active that is a text":      {with(`true`, `"false"`), "active is neither"},
		"an attribute that is nested":   {with(`"gold"`, `{"a":1}`), "plan is an object"},
		"a list with null":              {with(`["editor"]`, `["a",null]`), "roles is a list of more than"},
		"a list of lists":               {with(`["editor"]`, `[["a"]]`), "roles is a list of more than"},
		"a name twice":                  {with(`"plan":"gold"`, `"kc_id":"k2"`), "unambiguous names"},
		"a name twice, escaped":         {with(`"plan":"gold"`, `"kc\u005fid":"k2"`), "unambiguous names"},
		"a name in two cases":           {with(`"plan":"gold"`, `"KC_ID":"k2"`), "letter case only"},
		"a name in two scripts":         {with(`"plan":"gold"`, `"roleſ":["x"]`), "letter case only"},
		"a required name in capitals":   {with(`"tenant"`, `"Tenant"`), "no tenant; add it, in lower case"},
		"an optional name in capitals":  {with(`"plan"`, `"Issuer"`), "rename it"},
		"text that is not UTF-8":        {with(`gold`, "g\xffld"), "unambiguous names"},
		"half a surrogate":              {with(`gold`, `\ud800`), "unambiguous names"},
		"something after the object":    {alice + "{}", "unambiguous names"},
		"a list of records, RS-007":     {"[" + alice + "," + alice + "]", "not one JSON object"},
		"null":                          {"null", "not one JSON object"},
		"nothing":                       {"", "not one JSON object"},
		"more than 64 KiB, RS-014":      {with(`gold`, strings.Repeat("x", 64<<10)), "more than 65536 bytes"},
		"an attribute of strange name":  {with(`"plan"`, `"a.b"`), "letters, digits"},
		"an attribute of an empty name": {with(`"plan"`, `""`), "letters, digits"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, record(test.answer))
			got, err := mustLoad(t, a.URL, path).Resolve(t.Context(), aliceAtAcme)
			checkError(t, err, test.want)
			if errors.Is(err, member.ErrUnknown) || got != nil {
				t.Errorf("got %v, %v", got, err)
			}
			if strings.Contains(err.Error(), "gold") || strings.Contains(err.Error(), "k2") {
				t.Errorf("%q quotes the answer", err)
			}
		})
	}
}

func TestAnswersOtherThanARecord(t *testing.T) {
	endless := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat(" ", 1<<10)); err != nil {
				return
			}
		}
	}
	with := func(code int, header, value, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set(header, value)
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	tests := map[string]struct {
		answer http.HandlerFunc
		is     error
		want   string
	}{
		"404, RS-014":             {status(404), member.ErrUnknown, ""},
		"404 with a record":       {with(404, "X-A", "b", alice), member.ErrUnknown, ""},
		"409":                     {status(409), member.ErrAmbiguous, "409"},
		"HTML, RS-014":            {with(200, "Content-Type", "text/html", alice), nil, "application/json"},
		"no type":                 {with(200, "Content-Type", "", alice), nil, "application/json"},
		"204, RS-014":             {status(204), nil, "answers 204 and no record"},
		"201":                     {with(201, "X-A", "b", alice), nil, "answers 201 and no record"},
		"301, RS-014":             {with(301, "Location", "/elsewhere", alice), nil, "redirects (status 301)"},
		"307, RS-014":             {with(307, "Location", "/elsewhere", alice), nil, "redirects (status 307)"},
		"300":                     {with(300, "X-A", "b", alice), nil, "redirects (status 300)"},
		"304 to no question":      {status(304), nil, "304 to a request without If-None-Match"},
		"401, RS-014":             {status(401), nil, "does not let this server ask (status 401)"},
		"403":                     {status(403), nil, "does not let this server ask (status 403)"},
		"410":                     {status(410), nil, "answers 410"},
		"429, RS-014":             {status(429), nil, "answers 429"},
		"500, RS-014":             {status(500), nil, "answers 500"},
		"compressed, RS-014":      {with(200, "Content-Encoding", "gzip", "\x1f\x8b"), nil, "compressed"},
		"an endless body, RS-014": {endless, nil, "more than 65536 bytes"},
		"another type of JSON":    {with(200, "Content-Type", "application/vnd.app+json; charset=utf-8", "{}"), nil, "no kc_id"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, test.answer)
			got, err := mustLoad(t, a.URL, path).Resolve(t.Context(), aliceAtAcme)
			checkError(t, err, test.want)
			if got != nil || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("got %v, %v", got, err)
			}
			if test.is == nil && (errors.Is(err, member.ErrUnknown) || errors.Is(err, member.ErrAmbiguous)) {
				t.Errorf("%v says that the application knew", err)
			}
			if n := len(a.requests()); n != 1 {
				t.Errorf("%d requests, want 1: an answer is none to repeat, nor to follow", n)
			}
		})
	}
}

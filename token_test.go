package keycloakcacheauth

import (
	"net/http"
	"strings"
	"testing"
)

func TestTakeCredential(t *testing.T) {
	const token = "eyJh.eyJp.c2ln"
	for name, tc := range map[string]struct {
		fields    []string
		wantToken string
		wantFault outcome
	}{
		"no field":                           {nil, "", outcomeMissingToken},
		"an empty field":                     {[]string{""}, "", outcomeMissingToken},
		"a bearer token":                     {[]string{"Bearer " + token}, token, ""},
		"the scheme in another case":         {[]string{"bEaReR " + token}, token, ""},
		"several spaces after the scheme":    {[]string{"Bearer   " + token}, token, ""},
		"padding, as token68 allows":         {[]string{"Bearer abc=="}, "abc==", ""},
		"what is no token, for the verifier": {[]string{"Bearer a b, c "}, "a b, c ", ""},
		"another scheme":                     {[]string{"Basic YWxpY2U6eA=="}, "", outcomeMissingToken},
		"a token under DPoP":                 {[]string{"dpop " + token}, token, ""},
		"DPoP alone":                         {[]string{"DPoP"}, "", outcomeMalformedAuthorization},
		"a scheme that begins like ours":     {[]string{"Bearerish " + token}, "", outcomeMissingToken},
		"the scheme alone":                   {[]string{"Bearer"}, "", outcomeMalformedAuthorization},
		"the scheme and spaces":              {[]string{"Bearer    "}, "", outcomeMalformedAuthorization},
		"a tab after the scheme":             {[]string{"Bearer\t" + token}, "", outcomeMalformedAuthorization},
		"a comma after the scheme":           {[]string{"Bearer," + token}, "", outcomeMalformedAuthorization},
		"a colon after the scheme":           {[]string{"Bearer:" + token}, "", outcomeMalformedAuthorization},
		"two fields, the first good":         {[]string{"Bearer " + token, "Bearer garbage"}, "", outcomeMultipleCredentials},
		"two fields, the last good":          {[]string{"Basic YTpi", "Bearer " + token}, "", outcomeMultipleCredentials},
		"two fields alike":                   {[]string{"Bearer " + token, "Bearer " + token}, "", outcomeMultipleCredentials},
	} {
		t.Run(name, func(t *testing.T) {
			got := takeCredential(http.Header{"Authorization": tc.fields})
			if got.token != tc.wantToken || got.fault != tc.wantFault {
				t.Errorf("got fault %q and %d bytes of token, want fault %q", got.fault, len(got.token), tc.wantFault)
			}
		})
	}
}

func FuzzTakeCredential(f *testing.F) {
	for _, seed := range []string{"", "Bearer", "Bearer ", "bearer a.b.c", "Bearer a b", "Basic YTpi", "Bearer\ta", "Bearer a,Bearer b", "BEARER  a==", "DPoP a.b.c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		got := takeCredential(http.Header{"Authorization": {field}})
		if (got.token == "") != (got.fault != "") {
			t.Errorf("%q gave token %q and fault %q: one of both is wanted", field, got.token, got.fault)
		}
		if got.fault != "" {
			return
		}
		scheme := "Bearer"
		if got.dpop {
			scheme = "DPoP"
		}
		// nothing of the field may be passed over but scheme and spaces
		rest, ok := strings.CutSuffix(field, got.token)
		if !ok || !strings.EqualFold(strings.TrimRight(rest, " "), scheme) || strings.HasPrefix(got.token, " ") {
			t.Errorf("%q gave %q", field, got.token)
		}
	})
}

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
		"no field":                             {nil, "", outcomeMissingToken},
		"an empty field":                       {[]string{""}, "", outcomeMissingToken},
		"a bearer token":                       {[]string{"Bearer " + token}, token, ""},
		"the scheme in another case":           {[]string{"bEaReR " + token}, token, ""},
		"several spaces after the scheme":      {[]string{"Bearer   " + token}, token, ""},
		"padding, as token68 allows":           {[]string{"Bearer abc=="}, "abc==", ""},
		"another scheme":                       {[]string{"Basic YWxpY2U6eA=="}, "", outcomeMissingToken},
		"a token under DPoP":                   {[]string{"dpop " + token}, token, ""},
		"a malformed DPoP value":               {[]string{"DPoP a b"}, "", outcomeMalformedAuthorization},
		"DPoP alone":                           {[]string{"DPoP"}, "", outcomeMalformedAuthorization},
		"a scheme that begins like ours":       {[]string{"Bearerish " + token}, "", outcomeMissingToken},
		"the scheme alone":                     {[]string{"Bearer"}, "", outcomeMalformedAuthorization},
		"the scheme and spaces":                {[]string{"Bearer    "}, "", outcomeMalformedAuthorization},
		"a tab after the scheme":               {[]string{"Bearer\t" + token}, "", outcomeMalformedAuthorization},
		"a comma after the scheme":             {[]string{"Bearer," + token}, "", outcomeMalformedAuthorization},
		"a colon after the scheme":             {[]string{"Bearer:" + token}, "", outcomeMalformedAuthorization},
		"two credentials joined by a comma":    {[]string{"Bearer " + token + ", Bearer " + token}, "", outcomeMalformedAuthorization},
		"two credentials without a space":      {[]string{"Bearer " + token + "," + token}, "", outcomeMalformedAuthorization},
		"a parameter after the token":          {[]string{"Bearer " + token + ";x=1"}, "", outcomeMalformedAuthorization},
		"a trailing space":                     {[]string{"Bearer " + token + " "}, "", outcomeMalformedAuthorization},
		"a quoted token":                       {[]string{`Bearer "` + token + `"`}, "", outcomeMalformedAuthorization},
		"padding alone":                        {[]string{"Bearer =="}, "", outcomeMalformedAuthorization},
		"padding inside":                       {[]string{"Bearer a=b"}, "", outcomeMalformedAuthorization},
		"a byte that is not ASCII":             {[]string{"Bearer t\xc3\xa9"}, "", outcomeMalformedAuthorization},
		"two fields, the first good":           {[]string{"Bearer " + token, "Bearer garbage"}, "", outcomeMultipleCredentials},
		"two fields, the last good":            {[]string{"Basic YTpi", "Bearer " + token}, "", outcomeMultipleCredentials},
		"two fields alike":                     {[]string{"Bearer " + token, "Bearer " + token}, "", outcomeMultipleCredentials},
		"too long, which the verifier refuses": {[]string{"Bearer " + strings.Repeat("€", maxTokenSize)}, strings.Repeat("€", maxTokenSize), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := takeCredential(http.Header{"Authorization": tc.fields}, maxTokenSize)
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
		got := takeCredential(http.Header{"Authorization": {field}}, maxTokenSize)
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
		if !strings.HasSuffix(field, got.token) || !strings.EqualFold(field[:len(scheme)], scheme) {
			t.Errorf("%q gave %q", field, got.token)
		}
		if len(got.token) <= maxTokenSize && strings.ContainsAny(got.token, " \t,;\"\r\n") {
			t.Errorf("%q gave %q, which is more than one token", field, got.token)
		}
	})
}

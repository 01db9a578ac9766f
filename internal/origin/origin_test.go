package origin

import (
	"net/url"
	"testing"
)

func TestIsLoopback(t *testing.T) {
	for text, want := range map[string]bool{
		"http://localhost":             true,
		"http://localhost:8080/realms": true,
		"http://127.0.0.1":             true,
		"http://127.1.2.3:80":          true,
		"http://[::1]:8080":            true,
		"http://[::ffff:127.0.0.1]":    true,
		"http://localhost.example.com": false,
		"http://127.0.0.1.example.com": false,
		"http://127.1":                 false, // some resolvers take it for an address, others ask DNS
		"http://10.0.0.1":              false,
		"http://0.0.0.0":               false,
		"http://[::]":                  false,
		"http://":                      false,
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := IsLoopback(u); got != want {
			t.Errorf("%s: %t, want %t", text, got, want)
		}
	}
}

func TestSame(t *testing.T) {
	for name, tc := range map[string]struct {
		a, b string
		want bool
	}{
		"paths do not count":      {"https://sso/a", "https://sso/b?c", true},
		"the usual port":          {"https://sso", "https://sso:443", true},
		"names in other letters":  {"https://SSO", "https://sso", true},
		"another scheme":          {"https://sso", "http://sso", false},
		"another scheme's port":   {"http://sso:443", "https://sso", false},
		"another port":            {"https://sso:8443", "https://sso", false},
		"a longer name":           {"https://sso", "https://sso.example.com", false},
		"a user is none of these": {"https://sso@evil", "https://sso", false},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := url.Parse(tc.a)
			if err != nil {
				t.Fatal(err)
			}
			b, err := url.Parse(tc.b)
			if err != nil {
				t.Fatal(err)
			}
			if Same(a, b) != tc.want || Same(b, a) != tc.want {
				t.Errorf("%t, want %t", !tc.want, tc.want)
			}
		})
	}
}

package dpop

import (
	"strings"
	"testing"
)

func TestEqualTargets(t *testing.T) {
	for name, test := range map[string]struct {
		a, b string
		same bool
	}{
		"letter case of scheme and host":          {"HTTP://EXAMPLE.org/a", "http://example.org/a", true},
		"letter case of the path":                 {"https://a.example/A", "https://a.example/a", false},
		"default port of https":                   {"https://a.example:443/", "https://a.example/", true},
		"default port of http":                    {"http://a.example:80/", "http://a.example/", true},
		"the other's default port":                {"https://a.example:80/", "https://a.example/", false},
		"http for https, with its port":           {"http://a.example:443/", "https://a.example/", false},
		"the default port of https in http":       {"http://a.example:443/", "http://a.example/", false},
		"empty port":                              {"https://a.example:/", "https://a.example/", true},
		"port with zeros before it":               {"https://a.example:0443/", "https://a.example/", false},
		"default port of an IPv6 address":         {"https://[2001:DB8::1]:443/", "https://[2001:db8::1]/", true},
		"empty path":                              {"https://a.example", "https://a.example/", true},
		"empty path before a query":               {"https://a.example?x=/y", "https://a.example/", true},
		"query":                                   {"https://a.example/x?y", "https://a.example/x", true},
		"fragment":                                {"https://a.example/x#y", "https://a.example/x?z", true},
		"unreserved, escaped":                     {"https://a.example/%61%2D%2e%5f%7Eb", "https://a.example/a-._~b", true},
		"letter case of escapes":                  {"https://a.example/%c3%a4", "https://a.example/%C3%A4", true},
		"slash, escaped":                          {"https://a.example/a%2Fb", "https://a.example/a/b", false},
		"slash, escaped, beside oddities":         {"https://a.example/a%2Fb|", "https://a.example/a/b%7C", false},
		"oddities as they are":                    {"https://a.example/a|b[]", "https://a.example/a|b[]", true},
		"oddities, escaped":                       {"https://a.example/a%7Cb", "https://a.example/a|b", false},
		"percent, escaped twice":                  {"https://a.example/%2561", "https://a.example/%61", false},
		"sub-delimiters, escaped":                 {"https://a.example/a%3Bb", "https://a.example/a;b", false},
		"plus and space":                          {"https://a.example/a+b", "https://a.example/a%20b", false},
		"slashes in a row":                        {"https://a.example//b", "https://a.example/b", false},
		"slash at the end":                        {"https://a.example/b/", "https://a.example/b", false},
		"dot at the end of the host":              {"https://a.example./b", "https://a.example/b", false},
		"host that begins alike":                  {"https://a.example.evil.example/b", "https://a.example/b", false},
		"NUL, escaped":                            {"https://a.example/b%00c", "https://a.example/b", false},
		"three dots are a name":                   {"https://a.example/.../a", "https://a.example/.../a", true},
		"names with dots":                         {"https://a.example/.well-known/..a", "https://a.example/.well-known/..a", true},
		"a backslash is no slash":                 {`https://a.example/a\b`, "https://a.example/a/b", false},
		"dot segments in the query are no matter": {"https://a.example/a?/../b", "https://a.example/a", true},
	} {
		t.Run(name, func(t *testing.T) {
			a, okA := parseTarget(test.a)
			b, okB := parseTarget(test.b)
			if !okA || !okB || (a == b) != test.same {
				t.Errorf("%q and %q: %v, %v", a, b, okA, okB)
			}
		})
	}
}

func TestURLsThatAreNoTargets(t *testing.T) {
	for name, text := range map[string]string{
		"empty":                      "",
		"path":                       "/a",
		"without scheme":             "//a.example/",
		"without host":               "https:///a",
		"only a port":                "https://:443/a",
		"opaque":                     "https:a.example/a",
		"another scheme":             "ftp://a.example/a",
		"WebSocket":                  "wss://a.example/a",
		"user":                       "https://a@a.example/",
		"user and password":          "https://a:b@a.example/",
		"empty user":                 "https://@a.example/",
		"dot segment":                "https://a.example/./a",
		"dot segments":               "https://a.example/a/../b",
		"dot segments at the end":    "https://a.example/a/..",
		"dot segments, escaped":      "https://a.example/a/%2e%2E/b",
		"dot segments, half escaped": "https://a.example/a/.%2e/b",
		"port that is none":          "https://a.example:x/",
		"escape without digits":      "https://a.example/%zz",
		"escape that ends too early": "https://a.example/%4",
		"host, escaped":              "https://a%2eexample/",
		"host with other characters": "https://%C3%A4.example/",
		"host, other bytes":          "https://%FF.example/",
		"zone of an IPv6 address":    "https://[fe80::1%25eth0]/",
		"space":                      "https://a.example/a b",
		"space before":               " https://a.example/a",
		"line break":                 "https://a.example/a\n",
		"tab":                        "https://a.example/\ta",
		"characters beyond ASCII":    "https://a.example/ä",
		"a broken fragment":          "https://a.example/a#%zz",
	} {
		t.Run(name, func(t *testing.T) {
			if read, ok := parseTarget(text); ok {
				t.Errorf("read as %q", read)
			}
		})
	}
}

// What is in normal form stays as it is, and is no wider than what was written.
func FuzzTarget(f *testing.F) {
	for _, text := range []string{
		resource, "https://a.example/a%2Fb|?q#f", "HTTP://[::1]:80", "https://a.example/%7e%41%2e", "https://a.example:/..",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		read, ok := parseTarget(text)
		if !ok {
			return
		}
		again, ok := parseTarget(read.origin + read.path)
		if !ok || again != read {
			t.Errorf("%q is %q, and that %q", text, read, again)
		}
		if strings.Count(read.path, "/") > strings.Count(text, "/") && read.path != "/" {
			t.Errorf("%q has more segments than %q", read.path, text)
		}
		if strings.ContainsAny(read.origin, "@%?#") || strings.ContainsAny(read.path, "?# \x00") {
			t.Errorf("%q is %q", text, read)
		}
	})
}

package store

import (
	"fmt"
	"strings"
	"testing"
)

const testIssuer = "https://sso.example.com/realms/main"

func newTestKeys(t testing.TB) *Keys {
	t.Helper()
	keys, err := NewKeys("", Namespace("static", "a"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestMemberKeyReadsAsDocumented(t *testing.T) {
	keys, err := NewKeys("shop", "members")
	if err != nil {
		t.Fatal(err)
	}
	want := "shop:3:acme:m:members:" + digest(testIssuer) + ":8d0c"
	if got := keys.Member("acme", testIssuer, "8d0c"); got != want {
		t.Errorf("key is %q, want %q", got, want)
	}
	if n := len(digest(testIssuer)); n != 22 { // 128 bits
		t.Errorf("the digest has %d characters", n)
	}
	if keys.Member("acme", testIssuer, "8d0c") != want {
		t.Error("the second key differs from the first")
	}
}

func TestKeysRefuseParts(t *testing.T) {
	tests := map[string]struct{ prefix, namespace, want string }{
		"a separator in the prefix would let keys collide":    {"a:b", "n", "key prefix"},
		"a separator in the namespace would let keys collide": {"a", "n:m", "namespace"},
		"an empty namespace":    {"a", "", "namespace"},
		"a line break":          {"a\n", "n", "key prefix"},
		"a brace":               {"a{b}", "n", "key prefix"},
		"a space":               {"a", "my members", "namespace"},
		"letters beyond ASCII":  {"a", "größe", "namespace"},
		"a part that is a text": {strings.Repeat("a", 65), "n", "key prefix"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := NewKeys(test.prefix, test.namespace)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one about the %s", err, test.want)
			}
		})
	}
}

func TestMembersNeverShareAKey_CC005(t *testing.T) {
	// each pair would collide if its parts were just joined
	tests := map[string][2][3]string{
		"the border of tenant and the rest": {{"a:m:x", "i", "s"}, {"a", "i", "m:x:s"}},
		"a separator in the kc_id":          {{"a", "i", "b:c"}, {"a:b", "i", "c"}},
		"a tenant that looks disguised":     {{disguise("a:b"), "i", "s"}, {"a:b", "i", "s"}},
		"case":                              {{"Acme", "i", "s"}, {"acme", "i", "s"}},
		"a trailing slash of the issuer":    {{"a", "i/", "s"}, {"a", "i", "s"}},
		"empty tenants":                     {{"", "i", "s"}, {"{}", "i", "s"}},
		"bytes that are not UTF-8":          {{"a\xff", "i", "s"}, {"a\xfe", "i", "s"}},
	}
	keys := newTestKeys(t)
	for name, pair := range tests {
		t.Run(name, func(t *testing.T) {
			a, b := pair[0], pair[1]
			if key := keys.Member(a[0], a[1], a[2]); key == keys.Member(b[0], b[1], b[2]) {
				t.Errorf("%q and %q share %q", a, b, key)
			}
		})
	}
}

func FuzzMembersNeverShareAKey(f *testing.F) {
	f.Add("acme", "https://a", "s", "acme", "https://a", "t")
	f.Add("a:m", "i", "s", "a", "i", "m:s")
	f.Add("{x}", "", "", "", "", "{x}")
	f.Add("a", "i", "b:c", "a:b", "i", "c")
	keys := newTestKeys(f)
	f.Fuzz(func(t *testing.T, tenantA, issuerA, subA, tenantB, issuerB, subB string) {
		a, b := keys.Member(tenantA, issuerA, subA), keys.Member(tenantB, issuerB, subB)
		same := tenantA == tenantB && issuerA == issuerB && subA == subB
		if (a == b) != same {
			t.Errorf("%q and %q for (%q %q %q) and (%q %q %q)", a, b, tenantA, issuerA, subA, tenantB, issuerB, subB)
		}
		if parts := strings.SplitN(a, ":", 7); len(parts) != 7 || parts[6] != subA {
			t.Errorf("%q does not have its seven parts", a)
		}
	})
}

func TestNamespaceTellsIdentitiesApart(t *testing.T) {
	seen := map[string]string{}
	for _, identities := range [][]string{{}, {""}, {"", ""}, {"ab"}, {"a", "b"}, {"b", "a"}, {"a", "b", ""}, {"a\x00b"}} {
		namespace := Namespace(identities...)
		if other, ok := seen[namespace]; ok {
			t.Errorf("%q and %s share a namespace", identities, other)
		}
		seen[namespace] = fmt.Sprintf("%q", identities)
		if _, err := NewKeys("kca", namespace); err != nil {
			t.Errorf("the namespace of %q is refused: %v", identities, err)
		}
	}
}

func TestIssuerDigestsKeptAreBounded(t *testing.T) {
	keys := newTestKeys(t)
	for i := range maxKnownIssuers + 50 {
		issuer := fmt.Sprintf("https://sso.example.com/realms/%d", i)
		if !strings.Contains(keys.Member("acme", issuer, "s"), digest(issuer)) {
			t.Fatalf("the key of issuer %d lacks its digest", i)
		}
	}
	if n := len(*keys.middles.Load()); n != maxKnownIssuers {
		t.Errorf("%d digests are kept, want %d", n, maxKnownIssuers)
	}
}

func TestMemberKeyIsOneAllocation(t *testing.T) {
	keys := newTestKeys(t)
	keys.Member("acme", testIssuer, "8d0c5a3e-0000-4000-8000-000000000000")
	n := testing.AllocsPerRun(100, func() {
		keys.Member("acme", testIssuer, "8d0c5a3e-0000-4000-8000-000000000000")
	})
	if n > 1 {
		t.Errorf("a key costs %v allocations", n)
	}
}

func BenchmarkMemberKey(b *testing.B) {
	keys := newTestKeys(b)
	b.ReportAllocs()
	for b.Loop() {
		keys.Member("acme", testIssuer, "8d0c5a3e-0000-4000-8000-000000000000")
	}
}

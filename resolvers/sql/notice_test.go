package sqlresolver

import (
	"slices"
	"strings"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func TestReadNotice(t *testing.T) {
	all := []member.Change{{All: true}}
	tests := map[string]struct {
		payload string
		want    []member.Change
	}{
		"nothing":                       {"", all},
		"a star":                        {"*", all},
		"a tenant":                      {`{"tenant":"acme"}`, []member.Change{{Tenant: "acme"}}},
		"a user in a tenant":            {`{"tenant":"acme","kc_id":"k"}`, []member.Change{{Tenant: "acme", KCID: "k"}}},
		"a member":                      {`{"tenant":"acme","member_id":"41"}`, []member.Change{{Tenant: "acme", ID: "41"}}},
		"a member by its number":        {`{"tenant":"acme","member_id":41}`, []member.Change{{Tenant: "acme", ID: "41"}}},
		"a tenant by its number":        {`{"tenant":7}`, []member.Change{{Tenant: "7"}}},
		"a user and a member":           {`{"tenant":"acme","kc_id":"k","member_id":"41"}`, []member.Change{{Tenant: "acme", KCID: "k"}, {Tenant: "acme", ID: "41"}}},
		"a user in all tenants":         {`{"kc_id":"k"}`, []member.Change{{KCID: "k"}}},
		"a user, with an id of nowhere": {`{"kc_id":"k","member_id":"41"}`, []member.Change{{KCID: "k"}}},
		"null, as if left out":          {`{"tenant":"acme","kc_id":null}`, []member.Change{{Tenant: "acme"}}},
		"blanks as PostgreSQL has them": {` {"tenant" : "acme", "kc_id" : "k"}`, []member.Change{{Tenant: "acme", KCID: "k"}}},
		"text like a placeholder":       {`{"tenant":"{env.HOME}"}`, []member.Change{{Tenant: "{env.HOME}"}}},
		"an escaped character":          {`{"tenant":"\u0061"}`, []member.Change{{Tenant: "a"}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := readNotice(test.payload)
			if !ok || !slices.Equal(got, test.want) {
				t.Errorf("got %+v, %v, want %+v", got, ok, test.want)
			}
		})
	}
}

// What cannot be understood may have been about anybody.
func TestNoticesThatCannotBeReadFlushEverything_IV010(t *testing.T) {
	tests := map[string]string{
		"plain text":                      "acme",
		"an empty object":                 `{}`,
		"null":                            `null`,
		"a list":                          `[{"tenant":"acme"}]`,
		"a member of no tenant":           `{"member_id":"41"}`,
		"an unknown name":                 `{"tenant":"acme","user":"k"}`,
		"a name in capitals":              `{"Tenant":"acme"}`,
		"a name twice":                    `{"tenant":"acme","tenant":"b"}`,
		"an empty tenant":                 `{"tenant":"","kc_id":"k"}`,
		"an empty user":                   `{"tenant":"acme","kc_id":""}`,
		"a boolean":                       `{"tenant":"acme","kc_id":true}`,
		"a list of users":                 `{"tenant":"acme","kc_id":["k"]}`,
		"a fraction":                      `{"tenant":"acme","member_id":1.5}`,
		"a number written in another way": `{"tenant":"acme","member_id":4e1}`,
		"minus zero":                      `{"tenant":"acme","member_id":-0}`,
		"two objects":                     `{"tenant":"acme"} {"tenant":"b"}`,
		"an object that does not end":     `{"tenant":"acme"`,
		"text that is not UTF-8":          "{\"tenant\":\"a\xff\"}",
		"half of a surrogate pair":        `{"tenant":"\ud800"}`,
		"a user that is too long":         `{"tenant":"acme","kc_id":"` + strings.Repeat("k", maxNamed+1) + `"}`,
	}
	for name, payload := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := readNotice(payload)
			if ok || !slices.Equal(got, []member.Change{{All: true}}) {
				t.Errorf("got %+v, %v", got, ok)
			}
		})
	}
}

func FuzzReadNotice(f *testing.F) {
	for _, seed := range []string{"", "*", "{}", `{"tenant":"a","kc_id":"b","member_id":1}`, `{"tenant":null}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		changes, ok := readNotice(payload)
		if len(changes) == 0 {
			t.Fatal("nothing would be flushed")
		}
		for _, c := range changes {
			if !c.All && c.Tenant == "" && c.KCID == "" || !ok && !c.All {
				t.Errorf("%q: %+v, %v", payload, c, ok)
			}
		}
	})
}

package sqlresolver

import (
	"bytes"
	"regexp"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// maxNamed bounds a text of a notification. Longer ones name nobody: a tenant
// has at most 63 bytes, a `sub` at most 255.
const maxNamed = 512

// notice is the payload of a notification. Names that are null or left out
// widen what it is about.
type notice struct {
	Tenant   jsontext.Value `json:"tenant"`
	KCID     jsontext.Value `json:"kc_id"`
	MemberID jsontext.Value `json:"member_id"`
}

// readNotice returns the changes that a payload tells of, and whether it could
// be read. What cannot be read may have been about anybody.
//
//	empty, or *                          everybody
//	{"tenant":"t"}                       a tenant
//	{"tenant":"t","kc_id":"k"}           one user in one tenant
//	{"tenant":"t","member_id":"i"}       one member
//	{"tenant":"t","kc_id":…,"member_id":…}  both of these
//	{"kc_id":"k"}                        one user in all tenants
func readNotice(payload string) ([]member.Change, bool) {
	all := []member.Change{{All: true}}
	if payload == "" || payload == "*" {
		return all, true
	}
	var n notice
	if err := json.Unmarshal([]byte(payload), &n, json.RejectUnknownMembers(true)); err != nil {
		return all, false
	}
	var names [3]string
	for i, raw := range []jsontext.Value{n.Tenant, n.KCID, n.MemberID} {
		var ok bool
		if names[i], ok = named(raw); !ok {
			return all, false
		}
	}
	tenant, kcID, id := names[0], names[1], names[2]
	switch {
	case tenant == "" && kcID == "":
		return all, false // nobody is named, or an id that each tenant may have
	case tenant == "":
		return []member.Change{{KCID: kcID}}, true
	case kcID != "" && id != "":
		return []member.Change{{Tenant: tenant, KCID: kcID}, {Tenant: tenant, ID: id}}, true
	default:
		return []member.Change{{Tenant: tenant, KCID: kcID, ID: id}}, true
	}
}

// wholeNumber matches the numbers that are written in one way only.
var wholeNumber = regexp.MustCompile(`^(?:0|-?[1-9][0-9]{0,18})$`)

// named reads a text or a whole number, such as a bigint is in JSON. It returns
// "" for null and for what is left out; an empty text is refused.
func named(raw jsontext.Value) (string, bool) {
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return "", true
	}
	if raw.Kind() == '0' {
		return string(raw), wholeNumber.Match(raw)
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return "", false
	}
	return text, text != "" && len(text) <= maxNamed && utf8.ValidString(text)
}

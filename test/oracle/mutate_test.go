package oracle

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// member is one member of a JSON object: its name and value, both as text.
type member struct{ name, value string }

// draft is a token in the making.
type draft struct {
	header, claims []member
	alg            string      // that signs, whatever the header says
	key            *kctest.Key // likewise
}

// mutator makes tokens. Its keys are chosen by chance, all else by the seed.
type mutator struct {
	*rand.Rand
	now   int64
	keys  []*kctest.Key // the issuer's
	other []*kctest.Key // somebody else's
}

// algorithms in proportion to what signing with them costs.
var algorithms = []string{"EdDSA", "EdDSA", "EdDSA", "EdDSA", "EdDSA", "EdDSA", "EdDSA", "ES256", "ES256", "RS256", "PS256"}

func one[T any](m *mutator, of ...T) T { return of[m.IntN(len(of))] }

func (m *mutator) keyFor(alg string, keys []*kctest.Key) *kctest.Key {
	return keys[slices.IndexFunc(keys, func(k *kctest.Key) bool { return k.Algorithm == alg })]
}

// good is a token that both have to accept.
func (m *mutator) good() *draft {
	alg := one(m, algorithms...)
	key := m.keyFor(alg, m.keys)
	return &draft{
		alg:    alg,
		key:    key,
		header: []member{{"alg", quoted(alg)}, {"typ", `"JWT"`}, {"kid", quoted(key.ID)}},
		claims: []member{
			{"exp", fmt.Sprint(m.now + 300)},
			{"iat", fmt.Sprint(m.now)},
			{"jti", `"onrtro:5e99bc18-9047-1553-af94-5f3681e9ba09"`},
			{"iss", quoted(issuer)},
			{"aud", one(m, `"api"`, `["account","api"]`)},
			{"sub", `"712f4569-fc6e-4ddb-8d55-8490bd9ac613"`},
			{"typ", `"Bearer"`},
			{"azp", `"app"`},
			{"sid", `"4861bdf6-194d-d819-93bd-765541a55db5"`},
			{"acr", `"1"`},
			{"realm_access", `{"roles":["offline_access","admin"]}`},
			{"scope", `"openid email profile"`},
			{"email_verified", "true"},
			{"preferred_username", `"alice"`},
		},
	}
}

func quoted(text string) string {
	escaped, _ := json.Marshal(text) // a string can be marshalled
	return string(escaped)
}

func object(members []member) []byte {
	var text bytes.Buffer
	text.WriteByte('{')
	for i, each := range members {
		if i > 0 {
			text.WriteByte(',')
		}
		fmt.Fprintf(&text, "%s:%s", quoted(each.name), each.value)
	}
	text.WriteByte('}')
	return text.Bytes()
}

func (d *draft) sign() string { return d.key.Sign(d.alg, object(d.header), object(d.claims)) }

// token returns a changed token, and what kind of change it was.
func (m *mutator) token() (kind, raw string) {
	d := m.good()
	switch m.IntN(10) {
	case 0:
		return "nothing", d.sign()
	case 1, 2, 3:
		for range 1 + m.IntN(2) {
			d.claims = m.changeMembers(d.claims, m.claimValue)
		}
		return "claims", d.sign()
	case 4:
		d.header = m.changeMembers(d.header, m.headerValue)
		return "header", d.sign()
	case 5:
		text := m.garble(object(d.claims), `{}[]",:\u0 x1.eE-`+"\x00\xff\n\ufeff")
		return "text of the claims", d.key.Sign(d.alg, object(d.header), text)
	case 6:
		text := m.garble(object(d.header), `{}[]",:\u0 x1.eE-`+"\x00\xff\n")
		return "text of the header", d.key.Sign(d.alg, text, object(d.claims))
	case 7:
		return "signature", m.signature(d)
	case 8:
		return "characters", string(m.garble([]byte(d.sign()), "AZaz09-_=.+/ \n\x00\xff{"))
	default:
		return "structure", m.structure(d.sign())
	}
}

func (m *mutator) changeMembers(members []member, value func(string) string) []member {
	i := m.IntN(len(members))
	name := members[i].name
	switch m.IntN(7) {
	case 0: // dropped
		return slices.Delete(members, i, i+1)
	case 1: // twice
		return slices.Insert(members, m.IntN(len(members)+1), member{name, one(m, members[i].value, value(name))})
	case 2: // once more, in other letters
		return slices.Insert(members, m.IntN(len(members)+1), member{m.otherLetters(name), value(name)})
	case 3: // in other letters only
		members[i].name = m.otherLetters(name)
	case 4: // something that nobody asked for
		extra := one(m, "cnf", "nbf", "crit", "b64", "jwk", "jku", "x5c", "x5u", "cty", "zip", "enc", "nonce", "at_hash",
			"_claim_names", "events", "groups", "organization", "resource_access", "client_id", "email", "x", "")
		return slices.Insert(members, m.IntN(len(members)+1), member{extra, value(extra)})
	default:
		members[i].value = value(name)
	}
	return members
}

func (m *mutator) otherLetters(name string) string {
	switch m.IntN(3) {
	case 0:
		return strings.ToUpper(name)
	case 1:
		return strings.Replace(name, "s", "ſ", 1)
	}
	i := m.IntN(max(len(name), 1))
	return name[:i] + strings.ToUpper(name[i:min(i+1, len(name))]) + name[min(i+1, len(name)):]
}

// odd are values that fit hardly anywhere.
var odd = []string{
	"null", "true", "false", "0", "1", "-1", `""`, `" "`, `"x"`, "[]", "{}", "[null]", `[""]`, `["x",1]`, `{"a":1,"a":2}`,
	`{"a":{"b":[1,{"c":null}]}}`, "1e400", "-0", "1e3", "1.5", "99999999999999999999", "9223372036854775807",
	`"\u0000"`, `"\ud800"`, `"\u202e"`, `"ä"`, "\"\xff\"", "01", "+1", "NaN", "'x'", `"x`, "tru", `"\x"`, "/**/1",
}

func (m *mutator) claimValue(name string) string {
	if m.IntN(2) == 0 {
		return one(m, odd...)
	}
	switch name {
	case "exp", "iat", "nbf":
		at := m.now + one[int64](m, -86401, -86400, -301, -300, -1, 0, 1, 299, 300, 86399, 86400, 86401, 1e10, -1e10, 253402300800)
		return fmt.Sprint(at) + one(m, "", "", "", ".0", ".5", ".999999999", "e0", "e1", "E-1")
	case "iss":
		return quoted(one(m, issuer+"/", strings.ToUpper(issuer), issuer+"?", issuer+"\u0000", " "+issuer, "https://evil.test/realms/acme", issuer[:20]))
	case "aud":
		return one(m, `"API"`, `"api "`, `"api2"`, `["API"]`, `["x","api"]`, `[["api"]]`, `{"api":1}`, `["api","api"]`, `["api",null]`, `"account"`)
	case "sub":
		return one(m, `"712F4569-FC6E-4DDB-8D55-8490BD9AC613"`, `"alice"`, quoted(strings.Repeat("x", 255)), quoted(strings.Repeat("x", 256)), `"a\nb"`, `"\u00e4"`)
	case "typ":
		return one(m, `"bearer"`, `"ID"`, `"Refresh"`, `"Logout"`, `"Bearer "`, `["Bearer"]`, `"DPoP"`)
	case "cnf":
		return one(m, `{"jkt":"x"}`, `{"x5t#S256":"x"}`, "{}", "null")
	}
	return one(m, `"x"`, `["x"]`, `{"roles":["x"]}`, `{"roles":[1]}`, `"`+strings.Repeat("y", m.IntN(20000))+`"`)
}

func (m *mutator) headerValue(name string) string {
	if m.IntN(2) == 0 {
		return one(m, odd...)
	}
	switch name {
	case "alg":
		return quoted(one(m, "none", "None", "HS256", "HS512", "RS256", "PS256", "ES256", "EdDSA", "Ed25519", "RS512", "rs256", "ES384", "RSA-OAEP", "dir"))
	case "kid":
		return quoted(one(m, one(m, m.keys...).ID, one(m, m.other...).ID, "../x", strings.Repeat("k", 257), m.keys[0].ID+" "))
	case "typ":
		return quoted(one(m, "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "logout+jwt", "dpop+jwt", "JWT ", "JOSE"))
	case "jwk":
		text, _ := json.Marshal(one(m, m.other...).JWK()) // maps of texts
		return string(text)
	case "jku", "x5u":
		return `"http://127.0.0.1:9/jwks"`
	case "crit":
		return one(m, `["exp"]`, `["b64"]`, `["x"]`, "[]")
	case "zip":
		return `"DEF"`
	}
	return one(m, `"x"`, `["x"]`, "1")
}

// garble changes a few characters of a text.
func (m *mutator) garble(text []byte, alphabet string) []byte {
	for range 1 + m.IntN(3) {
		i := m.IntN(len(text) + 1)
		c := alphabet[m.IntN(len(alphabet))]
		switch m.IntN(4) {
		case 0:
			text = slices.Insert(text, i, c)
		case 1:
			if i < len(text) {
				text[i] = c
			}
		case 2:
			if i < len(text) {
				text = slices.Delete(text, i, i+1)
			}
		case 3:
			if i < len(text) {
				text[i] ^= 1 << m.IntN(8)
			}
		}
	}
	return text
}

// signature returns the token with a signature that is not the issuer's, or not for
// that algorithm.
func (m *mutator) signature(d *draft) string {
	good := d.sign()
	signed := good[:strings.LastIndexByte(good, '.')+1]
	signature, _ := base64.RawURLEncoding.DecodeString(good[len(signed):]) // made just now
	encode := base64.RawURLEncoding.EncodeToString
	switch m.IntN(8) {
	case 0:
		return m.keyFor(d.alg, m.other).Sign(d.alg, object(d.header), object(d.claims))
	case 1: // another key of the issuer's
		key := one(m, m.keys...)
		return key.Sign(key.Algorithm, object(d.header), object(d.claims))
	case 2: // one of RSA's two ways with the key of the other
		if alg := map[string]string{"RS256": "PS256", "PS256": "RS256"}[d.alg]; alg != "" {
			d.header[0].value, d.alg = quoted(alg), alg
		}
		return d.sign()
	case 3:
		return signed + encode(make([]byte, len(signature)))
	case 4:
		return signed + encode(signature[:m.IntN(len(signature))])
	case 5:
		return signed + encode(append(signature, make([]byte, 1+m.IntN(3))...))
	case 6: // a zero in front, as numbers may have
		return signed + encode(append([]byte{0}, signature...))
	default:
		return signed
	}
}

// structure puts the parts together otherwise.
func (m *mutator) structure(raw string) string {
	parts := strings.Split(raw, ".")
	other := strings.Split(m.good().sign(), ".")
	i := m.IntN(3)
	switch m.IntN(11) {
	case 0: // a part of another token
		parts[i] = other[i]
	case 1:
		j := m.IntN(3)
		parts[i], parts[j] = parts[j], parts[i]
	case 2:
		parts[i] = ""
	case 3:
		parts = slices.Delete(parts, i, i+1)
	case 4:
		parts = slices.Insert(parts, i, parts[m.IntN(3)])
	case 5:
		parts[i] += one(m, "=", "==", "A", "\n", " ", "\x00")
	case 6:
		return one(m, " ", "\n", "Bearer ", "\ufeff") + raw
	case 7:
		return raw + one(m, " ", "\n", ".", "..", ",x")
	case 8:
		return fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2])
	case 9: // the other alphabet, or other bits at the end of the last character
		parts[i] = one(m, strings.NewReplacer("-", "+", "_", "/").Replace(parts[i]), parts[i][:len(parts[i])-1]+one(m, "B", "R", "h", "x"))
	default:
		at := m.IntN(len(raw))
		return raw[:at]
	}
	return strings.Join(parts, ".")
}

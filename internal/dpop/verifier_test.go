package dpop

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestGoodProofsAreAccepted(t *testing.T) {
	for name, edit := range map[string]func(*draft){
		"as it is":                            func(*draft) {},
		"typ in capitals":                     func(d *draft) { d.header["typ"] = "DPoP+JWT" },
		"typ written out":                     func(d *draft) { d.header["typ"] = "application/dpop+jwt" },
		"with a kid":                          func(d *draft) { d.header["kid"] = "1" },
		"with parameters nobody knows":        func(d *draft) { d.header["x"] = []int{1} },
		"the key as WebCrypto exports it":     func(d *draft) { d.jwk["key_ops"], d.jwk["ext"] = []string{"verify"}, true },
		"the key says what it is for":         func(d *draft) { d.jwk["use"], d.jwk["alg"], d.jwk["kid"] = "sig", "ES256", "1" },
		"as old as it may be":                 func(d *draft) { d.claims["iat"] = start.Add(-time.Minute).Unix() },
		"as far ahead as it may be":           func(d *draft) { d.claims["iat"] = start.Add(10 * time.Second).Unix() },
		"iat with a fraction":                 func(d *draft) { d.claims["iat"] = float64(start.Unix()) + .5 },
		"exp still to come":                   func(d *draft) { d.claims["exp"] = start.Add(time.Second).Unix() },
		"exp just passed, within the leeway":  func(d *draft) { d.claims["exp"] = start.Add(-9 * time.Second).Unix() },
		"nbf ahead, within the leeway":        func(d *draft) { d.claims["nbf"] = start.Add(10 * time.Second).Unix() },
		"a nonce nobody asked for":            func(d *draft) { d.claims["nonce"] = "n" },
		"64 names":                            func(d *draft) { more(d.header, 64-3); more(d.claims, 64-5) },
		"claims nobody knows":                 func(d *draft) { d.claims["cnf"], d.claims["iss"] = map[string]any{}, 1 },
		"jti of 255 bytes":                    func(d *draft) { d.claims["jti"] = strings.Repeat("j", 255) },
		"htu with query and fragment":         func(d *draft) { d.claims["htu"] = resource + "?a=b#c" },
		"request with a query":                func(d *draft) { d.request.URLs[0] += "?a=b" },
		"htu in capitals and with port":       func(d *draft) { d.claims["htu"] = "HTTPS://Resource.Example.ORG:443/protectedresource" },
		"htu with needless escapes":           func(d *draft) { d.claims["htu"] = "https://resource.example.org/%70rotected%72esource" },
		"another address of the same request": func(d *draft) { d.request.URLs = []string{"http://10.0.0.1/x", ":", resource} },
		"a method of its own": func(d *draft) {
			d.claims["htm"], d.request.Method = "purge", "purge"
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDraft(t, "ES256")
			edit(d)
			if err := d.verify(); err != nil {
				t.Errorf("%v %+v", err, err)
			}
		})
	}
}

func TestProofsOfEveryAlgorithmAreAcceptedIfConfigured(t *testing.T) {
	for _, name := range allAlgorithms() {
		t.Run(name, func(t *testing.T) {
			d := newDraft(t, name)
			d.config.Algorithms = []string{name}
			if err := d.verify(); err != nil {
				t.Error(err)
			}
			d.signature = func(_ string, good []byte) []byte {
				good[len(good)/2] ^= 1
				return good
			}
			if err := d.verify(); ReasonOf(err) != ReasonSignature {
				t.Errorf("one bit changed: %v", err)
			}
		})
	}
}

// badProofs are all of one group, by what is wrong with them.
type badProofs map[string]struct {
	edit func(*draft)
	want Reason
}

func (cases badProofs) run(t *testing.T, algorithm string) {
	t.Helper()
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			d := newDraft(t, algorithm)
			test.edit(d)
			err := d.verify()
			if ReasonOf(err) != test.want {
				t.Errorf("%q, want %q: %+v", ReasonOf(err), test.want, err)
			}
			if d.replay.asked > 0 {
				t.Error("took up a place in the memory for replays")
			}
			if err != nil && strings.Contains(err.Error(), "resource.example") {
				t.Errorf("%q holds something from the proof", err)
			}
		})
	}
}

func TestBadFormsAreRefused(t *testing.T) {
	badProofs{
		"empty":                         {func(d *draft) { d.raw = func(string) string { return "" } }, ReasonMalformed},
		"too large":                     {func(d *draft) { d.claims["pad"] = strings.Repeat("a", 8<<10) }, ReasonTooLarge},
		"a byte more than may be":       {func(d *draft) { d.config.MaxSize = len(d.proof()) - 1 }, ReasonTooLarge},
		"two parts":                     {func(d *draft) { d.raw = func(s string) string { return s[:strings.LastIndexByte(s, '.')] } }, ReasonMalformed},
		"four parts":                    {func(d *draft) { d.raw = func(s string) string { return s + ".e30" } }, ReasonMalformed},
		"five parts, as if encrypted":   {func(d *draft) { d.raw = func(s string) string { return s + ".e30.e30" } }, ReasonMalformed},
		"padding":                       {func(d *draft) { d.raw = func(s string) string { return s + "==" } }, ReasonMalformed},
		"a line break":                  {func(d *draft) { d.raw = func(s string) string { return s + "\n" } }, ReasonMalformed},
		"a carriage return in between":  {func(d *draft) { d.raw = func(s string) string { return strings.Replace(s, ".", "\r.", 1) } }, ReasonMalformed},
		"space around":                  {func(d *draft) { d.raw = func(s string) string { return " " + s } }, ReasonMalformed},
		"two proofs in a list":          {func(d *draft) { d.raw = func(s string) string { return s + ", " + s } }, ReasonMalformed},
		"alphabet of plain base64":      {func(d *draft) { d.raw = func(s string) string { return s[:len(s)-4] + "+/+A" } }, ReasonMalformed},
		"spare bits set":                {func(d *draft) { d.raw = spareBit }, ReasonMalformed},
		"JSON serialisation":            {func(d *draft) { d.raw = func(string) string { return `{"payload":"e30","signatures":[]}` } }, ReasonMalformed},
		"header is no JSON":             {func(d *draft) { d.headerText = replaced(`{`, `[`) }, ReasonMalformed},
		"header is a list":              {func(d *draft) { d.headerText = func(s string) string { return "[" + s + "]" } }, ReasonMalformed},
		"space after the header":        {func(d *draft) { d.headerText = func(s string) string { return s + " " } }, ReasonMalformed},
		"two objects as header":         {func(d *draft) { d.headerText = func(s string) string { return s + "{}" } }, ReasonMalformed},
		"header with a repeated alg":    {func(d *draft) { d.headerText = replaced(`{`, `{"alg":"ES256",`) }, ReasonMalformed},
		"header with a repeated escape": {func(d *draft) { d.headerText = replaced(`{`, `{"\u0061lg":"ES256",`) }, ReasonMalformed},
		"header with Alg":               {func(d *draft) { d.header["Alg"] = "none" }, ReasonMalformed},
		"header with JWK":               {func(d *draft) { d.header["JWK"] = map[string]any{} }, ReasonMalformed},
		"header with invalid UTF-8":     {func(d *draft) { d.headerText = replaced(`{`, "{\"a\":\"\xff\",") }, ReasonMalformed},
		"claims are a list":             {func(d *draft) { d.claimsText = func(s string) string { return "[" + s + "]" } }, ReasonMalformed},
		"claims are nothing":            {func(d *draft) { d.claimsText = func(string) string { return "" } }, ReasonMalformed},
		"claims with a repeated htu":    {func(d *draft) { d.claimsText = replaced(`{`, `{"htu":"https://other.example/",`) }, ReasonMalformed},
		"claims with HTM":               {func(d *draft) { d.claims["HTM"] = "POST" }, ReasonMalformed},
		"claims with a repeat inside":   {func(d *draft) { d.claimsText = replaced(`{`, `{"a":{"b":1,"b":2},`) }, ReasonMalformed},
		"header of 65 names":            {func(d *draft) { more(d.header, 65-3) }, ReasonMalformed},
		"claims of 65 names":            {func(d *draft) { more(d.claims, 65-5) }, ReasonMalformed},
		"claims and something more":     {func(d *draft) { d.claimsText = func(s string) string { return s + "{}" } }, ReasonMalformed},
	}.run(t, "ES256")
}

// more adds that many names nobody knows.
func more(members map[string]any, count int) {
	for i := range count {
		members[strconv.Itoa(i)] = i
	}
}

func replaced(old, by string) func(string) string {
	return func(s string) string { return strings.Replace(s, old, by, 1) }
}

// spareBit sets the lowest of the four spare bits behind a signature of 64 bytes.
func spareBit(raw string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, raw[len(raw)-1])
	return raw[:len(raw)-1] + string(alphabet[last|1])
}

func TestBadHeadersAreRefused(t *testing.T) {
	badProofs{
		"no typ":                         {func(d *draft) { delete(d.header, "typ") }, ReasonType},
		"typ JWT":                        {func(d *draft) { d.header["typ"] = "JWT" }, ReasonType},
		"typ at+jwt":                     {func(d *draft) { d.header["typ"] = "at+jwt" }, ReasonType},
		"typ of another tree":            {func(d *draft) { d.header["typ"] = "text/dpop+jwt" }, ReasonType},
		"typ with a parameter":           {func(d *draft) { d.header["typ"] = "dpop+jwt; v=1" }, ReasonType},
		"typ is a list":                  {func(d *draft) { d.header["typ"] = []string{"dpop+jwt"} }, ReasonType},
		"no alg":                         {func(d *draft) { delete(d.header, "alg") }, ReasonAlgorithm},
		"PP-005 alg none":                {func(d *draft) { d.header["alg"], d.signature = "none", nothing }, ReasonAlgorithm},
		"PP-005 alg nOnE":                {func(d *draft) { d.header["alg"], d.signature = "nOnE", nothing }, ReasonAlgorithm},
		"PP-005 alg HS256, public key":   {hmacOverPublicKey, ReasonAlgorithm},
		"alg is a number":                {func(d *draft) { d.header["alg"] = 256 }, ReasonAlgorithm},
		"alg in small letters":           {func(d *draft) { d.header["alg"] = "es256" }, ReasonAlgorithm},
		"alg known but not configured":   {func(d *draft) { d.config.Algorithms = []string{"RS256"} }, ReasonAlgorithm},
		"alg ES256K":                     {func(d *draft) { d.header["alg"] = "ES256K" }, ReasonAlgorithm},
		"crit":                           {func(d *draft) { d.header["crit"] = []string{"exp"} }, ReasonHeader},
		"crit null":                      {func(d *draft) { d.header["crit"] = nil }, ReasonHeader},
		"b64":                            {func(d *draft) { d.header["b64"] = true }, ReasonHeader},
		"a key to be fetched (jku)":      {func(d *draft) { d.header["jku"] = "https://resource.example.org/keys" }, ReasonHeader},
		"a certificate to be fetched":    {func(d *draft) { d.header["x5u"] = "https://resource.example.org/cert" }, ReasonHeader},
		"a certificate":                  {func(d *draft) { d.header["x5c"] = []string{"AAAA"} }, ReasonHeader},
		"a certificate's thumbprint":     {func(d *draft) { d.header["x5t#S256"] = "AAAA" }, ReasonHeader},
		"kid is a number":                {func(d *draft) { d.header["kid"] = 1 }, ReasonHeader},
		"PP-005 other key":               {func(d *draft) { d.key = signers()["EdDSA"]; d.jwk = jwkOf(d.t, d.key); d.header["alg"] = "EdDSA" }, ReasonBinding},
		"PP-005 other key's signature":   {otherSignature, ReasonSignature},
		"token bound to no key":          {func(d *draft) { d.request.Thumbprint = "" }, ReasonBinding},
		"token bound to another key":     {func(d *draft) { d.request.Thumbprint = rfcThumbprint }, ReasonBinding},
		"thumbprint in other letters":    {func(d *draft) { d.request.Thumbprint = strings.ToUpper(d.request.Thumbprint) }, ReasonBinding},
		"bound elsewhere and ill signed": {func(d *draft) { d.request.Thumbprint, d.signature = rfcThumbprint, nothing }, ReasonBinding},
	}.run(t, "ES256")
}

func nothing(string, []byte) []byte { return nil }

// hmacOverPublicKey signs with what everybody knows.
func hmacOverPublicKey(d *draft) {
	d.header["alg"] = "HS256"
	d.signature = func(signed string, _ []byte) []byte {
		secret, err := json.Marshal(d.jwk)
		if err != nil {
			d.t.Fatal(err)
		}
		mac := hmac.New(sha256.New, secret)
		_, _ = mac.Write([]byte(signed))
		return mac.Sum(nil)
	}
}

// otherSignature shows the token's key and signs with another, as a thief of a token
// and one of its proofs can.
func otherSignature(d *draft) {
	thief, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	d.key = thief
}

func TestBadSignaturesAreRefused(t *testing.T) {
	es256 := func(edit func(key *ecdsa.PrivateKey, r, s *big.Int) []byte) func(*draft) {
		return func(d *draft) {
			d.signature = func(_ string, good []byte) []byte {
				return edit(d.key.(*ecdsa.PrivateKey), new(big.Int).SetBytes(good[:32]), new(big.Int).SetBytes(good[32:]))
			}
		}
	}
	badProofs{
		"none": {func(d *draft) { d.signature = nothing }, ReasonSignature},
		"both numbers zero": {es256(func(key *ecdsa.PrivateKey, _, _ *big.Int) []byte {
			return joined(key, new(big.Int), new(big.Int))
		}), ReasonSignature},
		"r is the order": {es256(func(key *ecdsa.PrivateKey, _, s *big.Int) []byte {
			return joined(key, key.Params().N, s)
		}), ReasonSignature},
		"ASN.1": {es256(func(_ *ecdsa.PrivateKey, r, s *big.Int) []byte {
			der, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
			if err != nil {
				t.Error(err)
			}
			return der
		}), ReasonSignature},
		"a zero before each number": {es256(func(_ *ecdsa.PrivateKey, r, s *big.Int) []byte {
			wide := make([]byte, 66)
			r.FillBytes(wide[:33])
			s.FillBytes(wide[33:])
			return wide
		}), ReasonSignature},
		"claims changed afterwards": {func(d *draft) {
			d.raw = func(raw string) string {
				d.claims["htm"] = "POST"
				text, _ := json.Marshal(d.claims)
				parts := strings.Split(raw, ".")
				return parts[0] + "." + b64(text) + "." + parts[2]
			}
			d.request.Method = "POST"
		}, ReasonSignature},
	}.run(t, "ES256")

	t.Run("PS256 with a salt of another length", func(t *testing.T) {
		d := newDraft(t, "PS256")
		d.signature = func(signed string, _ []byte) []byte {
			digest := sha256.Sum256([]byte(signed))
			signature, err := d.key.Sign(rand.Reader, digest[:], &rsa.PSSOptions{SaltLength: 20, Hash: 5})
			if err != nil {
				t.Fatal(err)
			}
			return signature
		}
		if err := d.verify(); ReasonOf(err) != ReasonSignature {
			t.Error(err)
		}
	})
	t.Run("RS256 under the name of PS256", func(t *testing.T) {
		d := newDraft(t, "PS256")
		d.signature = func(signed string, _ []byte) []byte { return d.sign("RS256", signed) }
		if err := d.verify(); ReasonOf(err) != ReasonSignature {
			t.Error(err)
		}
	})
	t.Run("Ed25519ph under the name of EdDSA", func(t *testing.T) {
		d := newDraft(t, "EdDSA")
		d.signature = func(signed string, _ []byte) []byte {
			digest := sha512.Sum512([]byte(signed))
			signature, err := d.key.Sign(rand.Reader, digest[:], &ed25519.Options{Hash: 7})
			if err != nil {
				t.Fatal(err)
			}
			return signature
		}
		if err := d.verify(); ReasonOf(err) != ReasonSignature {
			t.Error(err)
		}
	})
}

func TestBadClaimsAreRefused(t *testing.T) {
	set := func(name string, value any) func(*draft) { return func(d *draft) { d.claims[name] = value } }
	drop := func(name string) func(*draft) { return func(d *draft) { delete(d.claims, name) } }
	badProofs{
		"no jti":                         {drop("jti"), ReasonClaim},
		"jti empty":                      {set("jti", ""), ReasonClaim},
		"jti a number":                   {set("jti", 1), ReasonClaim},
		"jti null":                       {set("jti", nil), ReasonClaim},
		"jti of 256 bytes":               {set("jti", strings.Repeat("j", 256)), ReasonClaim},
		"no htm":                         {drop("htm"), ReasonClaim},
		"htm a list":                     {set("htm", []string{"GET"}), ReasonClaim},
		"PP-005 wrong htm":               {set("htm", "POST"), ReasonMethod},
		"PP-005 wrong htm, other case":   {set("htm", "get"), ReasonMethod},
		"htm of a method that is empty":  {func(d *draft) { d.claims["htm"], d.request.Method = "", "" }, ReasonClaim},
		"no htu":                         {drop("htu"), ReasonClaim},
		"htu an object":                  {set("htu", map[string]any{}), ReasonClaim},
		"PP-005 wrong htu, host":         {set("htu", "https://other.example.org/protectedresource"), ReasonURL},
		"PP-005 wrong htu, scheme":       {set("htu", "http://resource.example.org/protectedresource"), ReasonURL},
		"PP-005 wrong htu, port":         {set("htu", "https://resource.example.org:8443/protectedresource"), ReasonURL},
		"PP-005 wrong htu, path":         {set("htu", "https://resource.example.org/other"), ReasonURL},
		"PP-005 wrong htu, path's case":  {set("htu", "https://resource.example.org/ProtectedResource"), ReasonURL},
		"PP-005 wrong htu, only a start": {set("htu", "https://resource.example.org/protected"), ReasonURL},
		"PP-005 wrong htu, slash behind": {set("htu", resource+"/"), ReasonURL},
		"PP-005 wrong htu, dot segments": {set("htu", "https://resource.example.org/x/../protectedresource"), ReasonURL},
		"htu with a user":                {set("htu", "https://me@resource.example.org/protectedresource"), ReasonURL},
		"htu without scheme":             {set("htu", "//resource.example.org/protectedresource"), ReasonURL},
		"htu is only a path":             {set("htu", "/protectedresource"), ReasonURL},
		"no address of the request":      {func(d *draft) { d.request.URLs = nil }, ReasonURL},
		"no readable address":            {func(d *draft) { d.request.URLs = []string{"", "/protectedresource"} }, ReasonURL},
		"no iat":                         {drop("iat"), ReasonClaim},
		"iat a string":                   {set("iat", "1562262618"), ReasonClaim},
		"iat null":                       {set("iat", nil), ReasonClaim},
		"iat beyond all numbers":         {func(d *draft) { d.claimsText = replaced(`"iat":1562262618`, `"iat":1e400`) }, ReasonClaim},
		"iat in milliseconds":            {set("iat", start.UnixMilli()), ReasonClaim},
		"iat before 1970":                {set("iat", -1), ReasonClaim},
		"PP-005 old iat":                 {set("iat", start.Add(-61*time.Second).Unix()), ReasonTooOld},
		"PP-005 old iat, of 1970":        {set("iat", 0), ReasonTooOld},
		"iat ahead":                      {set("iat", start.Add(11*time.Second).Unix()), ReasonIssuedInFuture},
		"exp has passed":                 {set("exp", start.Add(-10*time.Second).Unix()), ReasonExpired},
		"exp has passed long ago":        {set("exp", 0), ReasonExpired},
		"exp of the zero time":           {set("exp", time.Time{}.Unix()), ReasonClaim},
		"exp a string":                   {set("exp", "never"), ReasonClaim},
		"exp null":                       {set("exp", nil), ReasonClaim},
		"nbf to come":                    {set("nbf", start.Add(11*time.Second).Unix()), ReasonNotYetValid},
		"nbf a boolean":                  {set("nbf", true), ReasonClaim},
		"PP-005 missing ath":             {drop("ath"), ReasonTokenHash},
		"ath empty":                      {set("ath", ""), ReasonTokenHash},
		"ath null":                       {set("ath", nil), ReasonClaim},
		"ath of another token":           {set("ath", athOf("another")), ReasonTokenHash},
		"ath with padding":               {set("ath", athOf(accessToken)+"="), ReasonTokenHash},
		"ath in hexadecimal":             {set("ath", "7d41f23b6af66770d9e7712c36b5816f4c565e868dcb9f4822220"), ReasonTokenHash},
		"ath of nothing, without token":  {func(d *draft) { d.claims["ath"], d.request.AccessToken = athOf(""), "" }, ReasonTokenHash},
		"nonce a number":                 {set("nonce", 1), ReasonClaim},
	}.run(t, "ES256")
}

func TestConfigurationsThatCannotBeMeantAreRefused(t *testing.T) {
	for name, edit := range map[string]func(*Config){
		"no memory":            func(c *Config) { c.Replay = nil },
		"window negative":      func(c *Config) { c.Window = -1 },
		"leeway negative":      func(c *Config) { c.Leeway = -1 },
		"size negative":        func(c *Config) { c.MaxSize = -1 },
		"HMAC":                 func(c *Config) { c.Algorithms = []string{"ES256", "HS256"} },
		"none":                 func(c *Config) { c.Algorithms = []string{"none"} },
		"algorithm with space": func(c *Config) { c.Algorithms = []string{"ES256 "} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Replay: newMemory()}
			edit(&cfg)
			if _, err := New(cfg); err == nil {
				t.Error("taken")
			}
		})
	}
}

func TestTheChallengeNamesBothNamesOfEd25519(t *testing.T) {
	v, err := New(Config{Replay: newMemory(), Algorithms: []string{"Ed25519", "ES256"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(v.Algorithms(), " "); got != "ES256 Ed25519 EdDSA" {
		t.Error(got)
	}
}

// The most frequent mistake: a proxy in front ends TLS, and is not trusted.
func TestTheHintNamesBothOriginsAndNoPath(t *testing.T) {
	d := newDraft(t, "ES256")
	d.request.URLs = []string{"http://resource.example.org/protectedresource"}
	refusal, ok := errors.AsType[*Error](d.verify())
	if !ok || !strings.Contains(refusal.Hint, `"https://resource.example.org"`) ||
		!strings.Contains(refusal.Hint, `"http://resource.example.org"`) || strings.Contains(refusal.Hint, "protected") {
		t.Errorf("%+v", refusal)
	}
}

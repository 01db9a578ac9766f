package dpop

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"math/big"
	"strings"
	"testing"
)

func TestBadKeysAreRefused(t *testing.T) {
	set := func(name string, value any) func(*draft) { return func(d *draft) { d.jwk[name] = value } }
	badProofs{
		"no jwk":         {func(d *draft) { d.jwk = nil }, ReasonKey},
		"jwk null":       {func(d *draft) { d.jwk, d.header["jwk"] = nil, nil }, ReasonKey},
		"jwk a string":   {func(d *draft) { d.jwk, d.header["jwk"] = nil, "{}" }, ReasonKey},
		"jwk a key set":  {func(d *draft) { d.jwk = map[string]any{"keys": []any{d.jwk}} }, ReasonKey},
		"x with a break": {func(d *draft) { d.jwk["x"] = d.jwk["x"].(string)[:10] + "\n" + d.jwk["x"].(string)[10:] }, ReasonKey},
		"a member of it in capitals": {
			func(d *draft) { d.jwk["X"] = d.jwk["x"] }, ReasonKey,
		},
		"a member of it twice": {
			func(d *draft) { d.headerText = replaced(`"jwk":{`, `"jwk":{"x":"AA",`) }, ReasonMalformed,
		},
		"PP-005 private key in jwk":               {set("d", b64([]byte("secret"))), ReasonPrivateKey},
		"PP-005 private key in jwk, null":         {set("d", nil), ReasonPrivateKey},
		"PP-005 private key in jwk, p":            {set("p", "AQAB"), ReasonPrivateKey},
		"PP-005 private key in jwk, q":            {set("q", "AQAB"), ReasonPrivateKey},
		"PP-005 private key in jwk, dp":           {set("dp", "AQAB"), ReasonPrivateKey},
		"PP-005 private key in jwk, dq":           {set("dq", "AQAB"), ReasonPrivateKey},
		"PP-005 private key in jwk, qi":           {set("qi", "AQAB"), ReasonPrivateKey},
		"PP-005 private key in jwk, oth":          {set("oth", []any{}), ReasonPrivateKey},
		"PP-005 private key in jwk, D":            {set("D", "AQAB"), ReasonKey},
		"symmetric key":                           {func(d *draft) { d.jwk = map[string]any{"kty": "oct", "k": "AQAB"} }, ReasonPrivateKey},
		"symmetric key without key":               {func(d *draft) { d.jwk = map[string]any{"kty": "oct"} }, ReasonKey},
		"no kty":                                  {func(d *draft) { delete(d.jwk, "kty") }, ReasonKey},
		"kty in small letters":                    {set("kty", "ec"), ReasonKey},
		"RSA key under ES256":                     {func(d *draft) { d.jwk = jwkOf(d.t, signers()["RS256"]) }, ReasonKey},
		"EC key under RS256":                      {func(d *draft) { d.header["alg"] = "RS256" }, ReasonKey},
		"EC key under EdDSA":                      {func(d *draft) { d.header["alg"] = "EdDSA" }, ReasonKey},
		"P-384 key under ES256":                   {func(d *draft) { d.jwk = jwkOf(d.t, signers()["ES384"]) }, ReasonKey},
		"crv of another curve":                    {set("crv", "P-384"), ReasonKey},
		"crv secp256k1":                           {set("crv", "secp256k1"), ReasonKey},
		"no crv":                                  {func(d *draft) { delete(d.jwk, "crv") }, ReasonKey},
		"no y":                                    {func(d *draft) { delete(d.jwk, "y") }, ReasonKey},
		"x a number":                              {set("x", 1), ReasonKey},
		"x too short":                             {set("x", b64(make([]byte, 31))), ReasonKey},
		"x with a zero before it":                 {set("x", b64(make([]byte, 33))), ReasonKey},
		"a byte of x moved to y":                  {moveByte, ReasonKey},
		"not on the curve":                        {func(d *draft) { d.jwk["x"], d.jwk["y"] = d.jwk["y"], d.jwk["x"] }, ReasonKey},
		"the point at infinity, so to say":        {func(d *draft) { d.jwk["x"], d.jwk["y"] = b64(make([]byte, 32)), b64(make([]byte, 32)) }, ReasonKey},
		"x beyond the field":                      {set("x", b64(bytesOf(0xff, 32))), ReasonKey},
		"use enc":                                 {set("use", "enc"), ReasonKey},
		"use empty":                               {set("use", ""), ReasonKey},
		"use null":                                {set("use", nil), ReasonKey},
		"key_ops without verify":                  {set("key_ops", []string{"sign"}), ReasonKey},
		"key_ops empty":                           {set("key_ops", []string{}), ReasonKey},
		"key_ops null":                            {set("key_ops", nil), ReasonKey},
		"key_ops a string":                        {set("key_ops", "verify"), ReasonKey},
		"the key's alg is another":                {set("alg", "ES384"), ReasonKey},
		"the key's alg is null":                   {set("alg", nil), ReasonKey},
		"the key's alg is EdDSA, the proof's not": {set("alg", "EdDSA"), ReasonKey},
	}.run(t, "ES256")
}

// moveByte spells the same point otherwise, which would have another thumbprint.
func moveByte(d *draft) {
	public, err := d.key.Public().(*ecdsa.PublicKey).Bytes()
	if err != nil {
		d.t.Fatal(err)
	}
	d.jwk["x"], d.jwk["y"] = b64(public[1:32]), b64(public[32:])
}

func bytesOf(value byte, count int) []byte {
	return []byte(strings.Repeat(string([]byte{value}), count))
}

func TestBadRSAKeysAreRefused(t *testing.T) {
	set := func(name string, value []byte) func(*draft) { return func(d *draft) { d.jwk[name] = b64(value) } }
	ofBits := func(bits int) []byte { // odd, and of no use
		return new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), uint(bits-1)), big.NewInt(1)).Bytes()
	}
	badProofs{
		"n of 1024 bits":       {set("n", ofBits(1024)), ReasonKey},
		"n of 2047 bits":       {set("n", ofBits(2047)), ReasonKey},
		"n of 8193 bits":       {set("n", ofBits(8193)), ReasonKey},
		"n even":               {set("n", append(ofBits(2048-8), 0)), ReasonKey},
		"n empty":              {set("n", nil), ReasonKey},
		"no n":                 {func(d *draft) { delete(d.jwk, "n") }, ReasonKey},
		"n with a zero before": {func(d *draft) { d.jwk["n"] = b64(append([]byte{0}, d.key.Public().(*rsa.PublicKey).N.Bytes()...)) }, ReasonKey},
		"e 1":                  {set("e", []byte{1}), ReasonKey},
		"e 2":                  {set("e", []byte{2}), ReasonKey},
		"e even":               {set("e", []byte{1, 0, 0}), ReasonKey},
		"e 0":                  {set("e", []byte{0}), ReasonKey},
		"e empty":              {set("e", nil), ReasonKey},
		"no e":                 {func(d *draft) { delete(d.jwk, "e") }, ReasonKey},
		"e with a zero before": {set("e", []byte{0, 1, 0, 1}), ReasonKey},
		"e of 32 bits":         {set("e", []byte{0x80, 0, 0, 1}), ReasonKey},
		"e of 40 bits":         {set("e", []byte{1, 0, 0, 0, 1}), ReasonKey},
		"e of 72 bits":         {set("e", []byte{1, 0, 0, 0, 0, 0, 1, 0, 1}), ReasonKey},
		"with crv":             {func(d *draft) { d.jwk["crv"] = "P-256" }, ReasonKey},
	}.run(t, "RS256")

	// The largest still taken gets as far as the comparison with the token's key.
	badProofs{
		"n of 2048 bits": {set("n", ofBits(2048)), ReasonBinding},
		"n of 8192 bits": {set("n", ofBits(8192)), ReasonBinding},
		"e of 31 bits":   {set("e", []byte{0x7f, 0xff, 0xff, 0xff}), ReasonBinding},
	}.run(t, "RS256")
}

func TestBadEd25519KeysAreRefused(t *testing.T) {
	set := func(name, value string) func(*draft) { return func(d *draft) { d.jwk[name] = value } }
	badProofs{
		"x of 31 bytes":    {set("x", b64(make([]byte, 31))), ReasonKey},
		"x of 33 bytes":    {set("x", b64(make([]byte, 33))), ReasonKey},
		"x empty":          {set("x", ""), ReasonKey},
		"crv Ed448":        {set("crv", "Ed448"), ReasonKey},
		"crv X25519":       {set("crv", "X25519"), ReasonKey},
		"EC key":           {func(d *draft) { d.jwk = jwkOf(d.t, signers()["ES256"]) }, ReasonKey},
		"a private member": {set("d", b64(make([]byte, 32))), ReasonPrivateKey},
	}.run(t, "EdDSA")
}

// A client names its algorithm by the one name, its library the key's by the other.
func TestBothNamesOfEd25519AreOne(t *testing.T) {
	d := newDraft(t, "EdDSA")
	d.config.Algorithms = []string{"EdDSA"}
	d.header["alg"], d.jwk["alg"] = "Ed25519", "EdDSA"
	if err := d.verify(); err != nil {
		t.Error(err)
	}
}

package dpop

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/jws"
)

// The examples of RFC 9449: figure 2 (§4.1), the thumbprint of figure 9 (§6.1), and
// figure 13 (§7.1) with its access token.
const (
	rfcTokenProof = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZ" +
		"OXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAt" +
		"MjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2Vu" +
		"IiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
	rfcResourceProof = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZ" +
		"OXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAt" +
		"MjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90" +
		"ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9." +
		"2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
	rfcThumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
)

// rfcRequest is that of RFC 9449 §7.1.
func rfcRequest() Request {
	return Request{
		Proof: rfcResourceProof, Method: "GET", URLs: []string{resource},
		AccessToken: accessToken, Thumbprint: rfcThumbprint,
	}
}

func TestTheResourceRequestOfRFC9449IsAccepted(t *testing.T) {
	v, err := New(Config{Replay: newMemory(), Now: func() time.Time { return start }})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Verify(t.Context(), rfcRequest()); err != nil {
		t.Fatal(err)
	}
	if err := v.Verify(t.Context(), rfcRequest()); ReasonOf(err) != ReasonReplay {
		t.Errorf("the second time: %v", err)
	}
}

// It is good at the token endpoint only: nothing ties it to an access token.
func TestTheTokenRequestOfRFC9449IsNoneForAResource(t *testing.T) {
	v, err := New(Config{Replay: newMemory(), Now: func() time.Time { return start }})
	if err != nil {
		t.Fatal(err)
	}
	r := rfcRequest()
	r.Proof, r.Method, r.URLs = rfcTokenProof, "POST", []string{"https://server.example.com/token"}
	if err := v.Verify(t.Context(), r); ReasonOf(err) != ReasonTokenHash {
		t.Error(err)
	}
}

func TestTheThumbprintsOfRFCsAreMet(t *testing.T) {
	for name, test := range map[string]struct{ algorithm, jwk, want string }{
		"RFC 7638 §3.1, RSA":    {"RS256", `{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"},
		"RFC 8037 A.3, Ed25519": {"EdDSA", `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
		"RFC 9449 §6.1, P-256":  {"ES256", `{"kty":"EC","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA","crv":"P-256"}`, rfcThumbprint},
	} {
		t.Run(name, func(t *testing.T) {
			alg, _ := jws.Named(test.algorithm)
			k, err := parseKey([]byte(test.jwk), test.algorithm, alg)
			if err != nil || k.thumbprint != test.want {
				t.Errorf("%q, want %q; error %v", k.thumbprint, test.want, err)
			}
		})
	}
}

// A proof of another client's library, made for the real Keycloak: with space in its
// JSON, and without ath since it went to the token endpoint.
func TestTheProofKeycloakAcceptedIsReadUpToItsMissingAth(t *testing.T) {
	const raw = "eyJ0eXAiOiAiZHBvcCtqd3QiLCAiYWxnIjogIkVTMjU2IiwgImp3ayI6IHsia3R5IjogIkVDIiwgImNydiI6ICJQLTI1NiIsICJ4IjogIk5TcTd0" +
		"Y3VGek5Sdzc1eFhzNGVTek1KRGhIdm9ldS1PSXkxTE9EQ0lMVWMiLCAieSI6ICIwbDQxbEk4YzJmR0dXXzdlNmc5Zk1IUzV2eGJmaVRuNnFyZVgyb1Z5" +
		"eDJJIn19.eyJqdGkiOiAiMzVhOWFiMGMtMzQ3OC00NDZlLWE1MzEtMTU2ZjIyN2RmNjU1IiwgImh0bSI6ICJQT1NUIiwgImh0dSI6ICJodHRwOi8vMTI3" +
		"LjAuMC4xOjE4MDgwL3JlYWxtcy9zZWMvcHJvdG9jb2wvb3BlbmlkLWNvbm5lY3QvdG9rZW4iLCAiaWF0IjogMTc5NTI1MjE0OH0.9Z11TfywC-lWza9Lv" +
		"NLkerm6YBRm4nw6n-Z5cnXjW2bDdWH-K4r-5vsvAEx09UKI-ra5_ryPHFJVAOcjtb4J_w"
	v, err := New(Config{Replay: newMemory(), Now: func() time.Time { return time.Unix(1795252148, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	err = v.Verify(t.Context(), Request{
		Proof: raw, Method: "POST", AccessToken: accessToken,
		Thumbprint: "KFjIapk1MqD29-lXTovRH0rq3i4A5Mj8D3jB1R6I2bI", // cnf.jkt of the token it got
		URLs:       []string{"http://127.0.0.1:18080/realms/sec/protocol/openid-connect/token"},
	})
	if ReasonOf(err) != ReasonTokenHash {
		t.Error(err)
	}
}

// What was made with one thumbprint in mind is read the same by go-jose.
func TestThumbprintsAreThoseOfGoJose(t *testing.T) {
	for _, name := range allAlgorithms() {
		text, err := json.Marshal(jwkOf(t, signers()[name]))
		if err != nil {
			t.Fatal(err)
		}
		alg, _ := jws.Named(name)
		k, err := parseKey(text, name, alg)
		if want := jktOf(t, signers()[name]); err != nil || k.thumbprint != want {
			t.Errorf("%s: %q, want %q; error %v", name, k.thumbprint, want, err)
		}
	}
}

package token

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// forgedToken is a line of testdata/forged/tokens.jsonl.
type forgedToken struct {
	ID      string `json:"id"`
	Variant string `json:"variant"`
	Kind    string `json:"kind"`
	Token   string `json:"token"`
	Expect  string `json:"expect"` // accept, reject, either
}

type forgedMeta struct {
	Now      int64  `json:"now"`
	Issuer   string `json:"iss"`
	Audience string `json:"audience"`
	Alice    string `json:"sub_alice"`
	Bob      string `json:"sub_bob"`
}

func forgedTokens(t testing.TB) (meta forgedMeta, rows []forgedToken) {
	t.Helper()
	meta = decodeFile[forgedMeta](t, "forged", "meta.json")
	for line := range bytes.Lines(readFile(t, "forged", "tokens.jsonl")) {
		var row forgedToken
		if err := json.Unmarshal(line, &row); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	return meta, rows
}

// forgedReasons are the reasons by case, and by "case variant" where one differs.
var forgedReasons = map[string]Reason{
	"JS-001": ReasonMalformed, "JS-003": ReasonMalformed, "JS-004": ReasonMalformed, "JS-006": ReasonMalformed,
	"JS-008": ReasonMalformed, "JS-009": ReasonMalformed, "JS-010": ReasonMalformed, "JS-011": ReasonMalformed,
	"JS-015": ReasonMalformed, "JS-016": ReasonMalformed, "JS-017": ReasonAlgorithm, "JS-018": ReasonMalformed,
	"JS-019": ReasonMalformed, "JS-020": ReasonMalformed, "JS-021": ReasonMalformed, "JS-022": ReasonUnknownKey,
	"JS-025": ReasonClaimType, "JS-026": ReasonAmbiguous, "JS-027": ReasonAmbiguous, "JS-029": ReasonAmbiguous,
	"JS-030": ReasonMalformed,
	// JSON without text behind it: the payload is no JSON, whatever claim it is in.
	"JS-025 lone surrogate escape": ReasonMalformed,
	// go-jose reads x5c, and this one is no certificate.
	"AK-017": ReasonMalformed,
	// The flipped bit leaves a header that is no JSON.
	"AK-026 RS256 part 0": ReasonMalformed, "AK-026 PS256 part 0": ReasonMalformed,
	"AK-026 ES256 part 0": ReasonMalformed, "AK-026 EdDSA part 0": ReasonMalformed,

	"AK-001": ReasonAlgorithm, "AK-002": ReasonAlgorithm, "AK-003": ReasonAlgorithm, "AK-004": ReasonAlgorithm,
	"AK-005": ReasonAlgorithm, "AK-006": ReasonAlgorithm, "AK-007": ReasonAlgorithm, "AK-008": ReasonSignature,
	"AK-010": ReasonUnknownKey, "AK-013": ReasonUnknownKey, "AK-015": ReasonUnknownKey, "AK-016": ReasonUnknownKey,
	"AK-018": ReasonIssuer, "AK-019": ReasonSignature, "AK-020": ReasonSignature,
	"AK-021": ReasonSignature, "AK-022": ReasonSignature, "AK-023": ReasonUnknownKey, "AK-024": ReasonUnknownKey,
	"AK-026": ReasonSignature, "AK-027": ReasonUnknownKey,

	"CL-001": ReasonTokenType, "CL-002": ReasonTokenType, "CL-004": ReasonTokenType, "CL-005": ReasonTokenType,
	"CL-008": ReasonHeaderType, "CL-009": ReasonMissingClaim, "CL-010": ReasonMissingClaim, "CL-011": ReasonClaimType,
	"CL-013": ReasonIssuer, "CL-014": ReasonIssuer, "CL-016": ReasonAudience, "CL-017": ReasonAudience,
	"CL-019": ReasonAudience,

	"TM-001": ReasonExpired, "TM-002": ReasonMissingClaim, "TM-003": ReasonClaimType, "TM-004": ReasonClaimType,
	"TM-006": ReasonExpired, "TM-007": ReasonNotYetValid, "TM-009": ReasonClaimType, "TM-010": ReasonIssuedInFuture,
	"PP-001": ReasonBound, "PP-003": ReasonBound, "PP-006": ReasonBound,
}

func TestForgedTokensAreRefusedForTheRightReason(t *testing.T) {
	meta, rows := forgedTokens(t)
	keySet := readFile(t, "forged", "jwks.json")
	for _, row := range rows {
		t.Run(row.ID+" "+row.Kind+" "+row.Variant, func(t *testing.T) {
			v, _ := verifierOf(t, meta.Issuer, keySet, time.Unix(meta.Now, 0), func(c *Config) {
				c.Audiences = []string{meta.Audience}
				c.Leeway = 10 * time.Second
			})
			tok, err := v.Verify(t.Context(), row.Token)
			if row.Kind == "logout" { // no access tokens, good or bad, but for one
				row.Expect = "reject"
				if row.Variant == "access token" {
					row.Expect = "accept"
				}
			}
			switch {
			case row.Expect == "accept" && err != nil:
				t.Fatalf("refused: %v", err)
			case row.Expect == "reject" && err == nil:
				t.Fatalf("accepted as %q", tok.Subject)
			case err == nil:
				if tok.Subject != meta.Alice && tok.Subject != meta.Bob {
					t.Errorf("accepted as %q, who is nobody", tok.Subject)
				}
				if row.ID == "JS-027" && tok.Subject != meta.Bob {
					t.Errorf("accepted as %q, whom only SUB names", tok.Subject)
				}
				return
			}
			got := ReasonOf(err)
			want, ok := forgedReasons[row.ID+" "+row.Variant]
			if !ok {
				want, ok = forgedReasons[row.ID]
			}
			if ok && got != want {
				t.Errorf("refused for %q, want %q (%v)", got, want, err)
			}
			if got == "" {
				t.Errorf("refused without a reason: %v", err)
			}
			if !ok && row.Kind == "bearer" && row.Expect == "reject" {
				t.Errorf("no reason listed; it was %q", got)
			}
			for part := range strings.SplitSeq(row.Token, ".") {
				if len(part) > 8 && strings.Contains(err.Error(), part) {
					t.Errorf("the error holds a part of the token: %v", err)
				}
			}
		})
	}
}

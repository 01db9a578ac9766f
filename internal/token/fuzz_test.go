package token

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"
)

func FuzzCompactToken(f *testing.F) {
	meta, rows := forgedTokens(f)
	for _, row := range rows {
		f.Add(row.Token)
	}
	f.Add(strings.Repeat(".", 100))
	v, _ := verifierOf(f, meta.Issuer, readFile(f, "forged", "jwks.json"), time.Unix(meta.Now, 0), func(c *Config) {
		c.Audiences = []string{meta.Audience}
	})
	genuine := make(map[string]bool)
	for _, row := range rows {
		if row.Expect != "reject" || row.Variant == "access token" {
			genuine[row.Token] = true
		}
	}
	f.Fuzz(func(t *testing.T, raw string) {
		tok, err := v.Verify(t.Context(), raw)
		switch {
		case err == nil && !genuine[raw]:
			t.Errorf("accepted as %q, though none of the signed tokens", tok.Subject)
		case err == nil && tok.Subject != meta.Alice && tok.Subject != meta.Bob:
			t.Errorf("accepted as %q", tok.Subject)
		case err != nil && ReasonOf(err) == "":
			t.Errorf("refused without a reason: %v", err)
		}
		header, payload, signature, err := decodeCompact(raw)
		if err == nil {
			again := base64.RawURLEncoding.EncodeToString(header) + "." +
				base64.RawURLEncoding.EncodeToString(payload) + "." +
				base64.RawURLEncoding.EncodeToString(signature)
			if again != raw {
				t.Errorf("%q is another spelling of %q", raw, again)
			}
		}
	})
}

package token

import (
	"flag"
	"fmt"
	"runtime"
	"testing"
	"time"
)

var floodTokens = flag.Int("tokens", 50_000, "how many distinct tokens TestSeenStaysFlat remembers")

// However many tokens are verified, those that are remembered take what they may.
// Their signatures are not made here, so that there can be many: -args -tokens 10000000.
func TestSeenStaysFlat(t *testing.T) {
	tokens := *floodTokens
	const most = 16 << 20
	now := time.Now()
	seen := seenOf(t, SeenConfig{MaxBytes: most})
	before := heap()
	remember := func(i int) {
		text, tok := madeUp(t, now, i)
		if i%10 == 0 { // some are asked for claims that Token has no fields for
			defer tok.Claim("sub")
		}
		seen.put(seen.digest(text), tok)
	}
	for i := range tokens * 4 / 5 {
		remember(i)
	}
	seen.tokens.CleanUp()
	between := heap()
	for i := tokens * 4 / 5; i < tokens; i++ {
		remember(i)
	}
	seen.tokens.CleanUp()
	after := heap()
	count, said := seen.Size()
	t.Logf("%d tokens: %d KiB after four fifths, %d KiB at the end; %d are remembered, said to take %d KiB",
		tokens, (between-before)>>10, (after-before)>>10, count, said>>10)
	if after > between+between/20+2<<20 || after-before > most*5/4+1<<20 || said > most {
		t.Errorf("the heap grows from %d to %d KiB", (between-before)>>10, (after-before)>>10)
	}
	runtime.KeepAlive(seen)
}

// madeUp returns a token that nobody has signed, and the text of its claims.
func madeUp(tb testing.TB, now time.Time, i int) (string, *Token) {
	tb.Helper()
	text := fmt.Sprintf(`{"exp":%d,"iat":%d,"jti":"onrtro:%036d","iss":"https://sso.example.com/realms/main","aud":["shop","account"],`+
		`"sub":"712f4569-fc6e-4ddb-8d55-8490bd9ac613","typ":"Bearer","azp":"app","sid":"8da98fe8-bb42-4e1b-ae2b-17b5f477cf6e","acr":"1",`+
		`"realm_access":{"roles":["default-roles-main","editor"]},"scope":"openid email profile","email_verified":true,`+
		`"name":"Alice Test","preferred_username":"alice","email":"alice@example.test"}`, now.Unix()+3600, now.Unix(), i)
	p, err := parsePayload([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	p.kind, p.expiry = bearerType, now.Add(time.Hour)
	tok, err := newToken(&p, false)
	if err != nil {
		tb.Fatal(err)
	}
	return text, tok
}

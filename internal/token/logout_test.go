package token

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// appOnly is whose logouts count, in most tests.
var appOnly = []string{"app"}

func TestForgedLogoutTokens(t *testing.T) {
	meta, rows := forgedTokens(t)
	keySet := readFile(t, "forged", "jwks.json")
	reasons := map[string]Reason{ // by case, and by "case variant" where one differs
		"BL-002": ReasonAlgorithm, "BL-003": ReasonHeaderType, "BL-003 typ Bearer + events": ReasonTokenType,
		"BL-004": ReasonTokenType, "BL-004 EVENTS": ReasonAmbiguous, "BL-005": ReasonTokenType,
		"BL-007": ReasonAudience, "BL-008": ReasonIssuer, "BL-008 evil key": ReasonSignature,
		"BL-009": ReasonMissingClaim, "BL-009 empty": ReasonClaimType, "BL-011": ReasonMissingClaim, "BL-012": ReasonHeaderType,
	}
	logouts := 0
	for _, row := range rows {
		t.Run(row.ID+" "+row.Kind+" "+row.Variant, func(t *testing.T) {
			v, _ := verifierOf(t, meta.Issuer, keySet, time.Unix(meta.Now, 0))
			issuers, err := NewIssuers(nil, v)
			if err != nil {
				t.Fatal(err)
			}
			logout, err := issuers.VerifyLogout(t.Context(), row.Token, appOnly)
			if row.Kind != "logout" {
				if ReasonOf(err) == "" {
					t.Errorf("an access token, good or bad, is a logout of %+v: %v", logout, err)
				}
				return
			}
			logouts++
			want, ok := reasons[row.ID+" "+row.Variant]
			if !ok {
				want = reasons[row.ID]
			}
			if ReasonOf(err) != want || (err == nil) != (row.Expect == "accept") {
				t.Fatalf("got %v, want %s, %q", err, row.Expect, want)
			}
			if err == nil && (logout.Subject != meta.Alice || logout.ID == "" || logout.Issuer != meta.Issuer) {
				t.Errorf("got %+v", logout)
			}
		})
	}
	if logouts < 25 {
		t.Errorf("%d logout tokens", logouts)
	}
}

func TestLogoutTokensOfARealKeycloak(t *testing.T) {
	files, err := filepath.Glob("testdata/keycloak/logout-token-*.json")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	type request struct {
		Raw     string `json:"raw"`
		Decoded struct {
			Payload struct {
				Audience string `json:"aud"`
				Subject  string `json:"sub"`
				Session  string `json:"sid"`
				ID       string `json:"jti"`
				Issued   int64  `json:"iat"`
			} `json:"payload"`
		} `json:"decoded"`
	}
	for _, file := range files {
		for i, sent := range decodeFile[[]request](t, "keycloak", filepath.Base(file)) {
			// BL-015 is in the name of a file: ES256, where access tokens have RS256.
			t.Run(fmt.Sprintf("BL-001 BL-015 %s %d", filepath.Base(file), i), func(t *testing.T) {
				said := sent.Decoded.Payload
				v, _ := verifierOf(t, keycloakIssuer, readFile(t, "keycloak", "jwks-after-rotation.json"),
					time.Unix(said.Issued+1, 0), func(c *Config) { c.Audiences = []string{"api"} })
				issuers, err := NewIssuers(nil, v)
				if err != nil {
					t.Fatal(err)
				}
				got, err := issuers.VerifyLogout(t.Context(), sent.Raw, []string{"other", said.Audience})
				if err != nil {
					t.Fatal(err)
				}
				want := Logout{
					Issuer: keycloakIssuer, Subject: said.Subject, SessionID: said.Session, ID: said.ID,
					IssuedAt: time.Unix(said.Issued, 0),
				}
				if got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
				if _, err := issuers.Verify(t.Context(), sent.Raw); ReasonOf(err) != ReasonTokenType {
					t.Errorf("as an access token: %v", err)
				}
			})
		}
	}
}

func TestClaimsOfALogoutToken(t *testing.T) {
	s := newStage(t, func(_ *KeySetConfig, c *Config) { c.Leeway = 10 * time.Second })
	issuers, err := NewIssuers(nil, s.verifier)
	if err != nil {
		t.Fatal(err)
	}
	s.realm.ActiveKey("EdDSA") // before the first fetch
	now := s.now().Unix()
	set, drop := kctest.Claim, kctest.Without
	event := func(value any) kctest.Option { return set("events", map[string]any{logoutEvent: value}) }
	long := strings.Repeat("x", 256)
	for name, test := range map[string]struct {
		change []kctest.Option
		want   Reason
	}{
		"nothing changed":                         {nil, ""},
		"typ of the media type":                   {[]kctest.Option{kctest.Header("typ", "application/logout+jwt")}, ""},
		"typ in capitals":                         {[]kctest.Option{kctest.Header("typ", "LOGOUT+JWT")}, ""},
		"BL-012 typ is absent":                    {[]kctest.Option{kctest.WithoutHeader("typ")}, ReasonHeaderType},
		"BL-012 typ JWT":                          {[]kctest.Option{kctest.Header("typ", "JWT")}, ReasonHeaderType},
		"BL-012 typ of a longer name":             {[]kctest.Option{kctest.Header("typ", "xlogout+jwt")}, ReasonHeaderType},
		"the claim typ is absent, as elsewhere":   {[]kctest.Option{drop("typ")}, ""},
		"the claim typ is null":                   {[]kctest.Option{set("typ", nil)}, ReasonTokenType},
		"BL-003 the claim typ is Bearer":          {[]kctest.Option{set("typ", "Bearer")}, ReasonTokenType},
		"BL-003 the claim typ is in small":        {[]kctest.Option{set("typ", "logout")}, ReasonTokenType},
		"BL-002 alg none":                         {[]kctest.Option{kctest.Header("alg", "none")}, ReasonAlgorithm},
		"BL-002 HS256":                            {[]kctest.Option{kctest.SignedBy(kctest.NewKey("HS256"))}, ReasonAlgorithm},
		"BL-002 another's key":                    {[]kctest.Option{kctest.SignedBy(kctest.NewKey("ES256").WithID(s.realm.ActiveKey("ES256").ID))}, ReasonSignature},
		"BL-002 an unknown key":                   {[]kctest.Option{kctest.SignedBy(kctest.NewKey("ES256"))}, ReasonUnknownKey},
		"BL-015 EdDSA":                            {[]kctest.Option{kctest.Algorithm("EdDSA")}, ""},
		"BL-015 RS512, which is not configured":   {[]kctest.Option{kctest.Header("alg", "RS512")}, ReasonAlgorithm},
		"BL-004 no events":                        {[]kctest.Option{drop("events")}, ReasonTokenType},
		"BL-004 events is null":                   {[]kctest.Option{set("events", nil)}, ReasonTokenType},
		"BL-004 events is a string":               {[]kctest.Option{set("events", logoutEvent)}, ReasonTokenType},
		"BL-004 events is a list":                 {[]kctest.Option{set("events", []string{logoutEvent})}, ReasonTokenType},
		"BL-004 events is empty":                  {[]kctest.Option{set("events", map[string]any{})}, ReasonTokenType},
		"BL-004 the event is null":                {[]kctest.Option{event(nil)}, ReasonTokenType},
		"BL-004 the event is true":                {[]kctest.Option{event(true)}, ReasonTokenType},
		"BL-004 the event is a list":              {[]kctest.Option{event([]any{})}, ReasonTokenType},
		"BL-004 the event is an object with text": {[]kctest.Option{event(map[string]any{"x": "y"})}, ""},
		"BL-004 the event in capitals":            {[]kctest.Option{set("events", map[string]any{strings.ToUpper(logoutEvent): map[string]any{}})}, ReasonTokenType},
		"BL-004 EVENTS beside events":             {[]kctest.Option{set("EVENTS", map[string]any{})}, ReasonAmbiguous},
		"BL-005 a nonce":                          {[]kctest.Option{set("nonce", "x")}, ReasonTokenType},
		"BL-005 a nonce that is null":             {[]kctest.Option{set("nonce", nil)}, ReasonTokenType},
		"BL-005 a nonce in capitals":              {[]kctest.Option{set("NONCE", "x")}, ReasonAmbiguous},
		"BL-007 aud of another client":            {[]kctest.Option{set("aud", "other")}, ReasonAudience},
		"BL-007 aud in capitals":                  {[]kctest.Option{set("aud", "APP")}, ReasonAudience},
		"BL-007 aud is a list of ours":            {[]kctest.Option{set("aud", []string{"app"})}, ""},
		"BL-007 aud is a list of two of ours":     {[]kctest.Option{set("aud", []string{"app", "app-two"})}, ""},
		"BL-007 aud has another's, too":           {[]kctest.Option{set("aud", []string{"app", "other"})}, ReasonAudience},
		"BL-007 aud is empty":                     {[]kctest.Option{set("aud", []string{})}, ReasonAudience},
		"BL-007 no aud":                           {[]kctest.Option{drop("aud")}, ReasonAudience},
		"BL-007 aud is an object":                 {[]kctest.Option{set("aud", map[string]any{"app": 1})}, ReasonClaimType},
		"BL-008 another realm":                    {[]kctest.Option{set("iss", s.server.URL()+"/realms/other")}, ReasonIssuer},
		"BL-008 iss with a slash":                 {[]kctest.Option{set("iss", s.realm.Issuer()+"/")}, ReasonIssuer},
		"BL-009 neither sub nor sid":              {[]kctest.Option{drop("sub", "sid")}, ReasonMissingClaim},
		"BL-009 sub alone":                        {[]kctest.Option{drop("sid")}, ""},
		"BL-009 sid alone":                        {[]kctest.Option{drop("sub")}, ""},
		"BL-009 sub is null":                      {[]kctest.Option{set("sub", nil)}, ReasonClaimType},
		"BL-009 sub is empty":                     {[]kctest.Option{set("sub", "")}, ReasonClaimType},
		"BL-009 sub is a space":                   {[]kctest.Option{set("sub", " ")}, ReasonClaimType},
		"BL-009 sub is a list":                    {[]kctest.Option{set("sub", []string{"x"})}, ReasonClaimType},
		"BL-009 sub is too long":                  {[]kctest.Option{set("sub", long)}, ReasonClaimType},
		"BL-009 sid has a line break":             {[]kctest.Option{set("sid", "a\nb")}, ReasonClaimType},
		"BL-009 sid is too long":                  {[]kctest.Option{set("sid", long)}, ReasonClaimType},
		"BL-009 SUB beside sub":                   {[]kctest.Option{set("SUB", "x")}, ReasonAmbiguous},
		"no jti":                                  {[]kctest.Option{drop("jti")}, ReasonMissingClaim},
		"jti is a number":                         {[]kctest.Option{set("jti", 1)}, ReasonClaimType},
		"jti is too long":                         {[]kctest.Option{set("jti", long)}, ReasonClaimType},
		"no iat":                                  {[]kctest.Option{drop("iat")}, ReasonMissingClaim},
		"iat is text":                             {[]kctest.Option{set("iat", fmt.Sprint(now))}, ReasonClaimType},
		"iat within the leeway":                   {[]kctest.Option{set("iat", now+10)}, ""},
		"iat beyond the leeway":                   {[]kctest.Option{set("iat", now+11)}, ReasonIssuedInFuture},
		"exp a second before its end":             {[]kctest.Option{set("exp", now-9)}, ""},
		"exp at its end":                          {[]kctest.Option{set("exp", now-10)}, ReasonExpired},
		"exp is null":                             {[]kctest.Option{set("exp", nil)}, ReasonMissingClaim},
		"exp is text":                             {[]kctest.Option{set("exp", "1")}, ReasonClaimType},
		"an hour old":                             {[]kctest.Option{set("iat", now-3610)}, ""},
		"older than an hour, whatever exp says":   {[]kctest.Option{set("iat", now-3611)}, ReasonExpired},
		"no exp":                                  {[]kctest.Option{drop("exp")}, ""},
		"no exp, two minutes old":                 {[]kctest.Option{drop("exp"), set("iat", now-130)}, ""},
		"no exp, and older":                       {[]kctest.Option{drop("exp"), set("iat", now-131)}, ReasonExpired},
		"nbf beyond the leeway":                   {[]kctest.Option{set("nbf", now+11)}, ReasonNotYetValid},
		"nbf is null":                             {[]kctest.Option{set("nbf", nil)}, ReasonClaimType},
	} {
		t.Run(name, func(t *testing.T) {
			raw := s.realm.LogoutToken(s.alice, "a-session", test.change...)
			logout, err := issuers.VerifyLogout(t.Context(), raw, []string{"app", "app-two"})
			if ReasonOf(err) != test.want || (err == nil) != (test.want == "") {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if err != nil && logout != (Logout{}) {
				t.Errorf("refused, and %+v", logout)
			}
			if err == nil && (logout.Subject != s.alice.ID && name != "BL-009 sid alone" ||
				logout.SessionID != "a-session" && name != "BL-009 sub alone") {
				t.Errorf("got %+v", logout)
			}
		})
	}
	if _, err := issuers.VerifyLogout(t.Context(), s.realm.LogoutToken(s.alice, "x"), nil); ReasonOf(err) != ReasonAudience {
		t.Errorf("without clients: %v", err)
	}
}

func testLogoutTokensNeverPassForAccessTokensNorTheOtherWayRound(t *testing.T) {
	s := newSeenStage(t)
	logout, access := s.realm.LogoutToken(s.alice, "x"), s.realm.AccessToken(s.alice)
	for range 2 { // unknown, and known
		wantVerified(t, s.issuers, logout, ReasonTokenType, false, "a logout token as an access token")
		if _, err := s.issuers.VerifyLogout(t.Context(), logout, appOnly); err != nil {
			t.Fatal(err)
		}
		if _, err := s.issuers.VerifyLogout(t.Context(), access, []string{"app", "account"}); ReasonOf(err) != ReasonHeaderType {
			t.Fatalf("an access token as a logout token: %v", err)
		}
		_, _ = s.issuers.Verify(t.Context(), access)
	}
	if tok := s.seen.get(s.seen.digest(logout)); tok != nil {
		t.Error("the logout token is remembered")
	}
	// One token that is everything an access token is, and everything a logout token is.
	hybrid := s.realm.LogoutToken(s.alice, "x", kctest.Claim("typ", "Bearer"), kctest.Header("typ", "at+jwt"))
	wantVerified(t, s.issuers, hybrid, "", false, "a hybrid is an access token")
	if _, err := s.issuers.VerifyLogout(t.Context(), hybrid, appOnly); ReasonOf(err) != ReasonHeaderType {
		t.Errorf("and no logout token: %v", err)
	}
}

func testAReplayedLogoutTokenSaysTheSame(t *testing.T) {
	s := newSeenStage(t)
	raw := s.realm.LogoutToken(s.alice, "x")
	first, err := s.issuers.VerifyLogout(t.Context(), raw, appOnly)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.issuers.VerifyLogout(t.Context(), raw, appOnly); err != nil || again != first {
		t.Errorf("got %+v, %v", again, err)
	}
	s.advance(2 * time.Minute)
	if _, err := s.issuers.VerifyLogout(t.Context(), raw, appOnly); ReasonOf(err) != ReasonExpired {
		t.Errorf("after its end: %v", err)
	}
}

func testAFloodOfGarbageLogoutsHardlyAsksTheIssuer(t *testing.T) {
	s := newSeenStage(t)
	good := s.realm.AccessToken(s.alice)
	wantVerified(t, s.issuers, good, "", false, "before")
	template := s.realm.LogoutToken(s.alice, "x")
	_, payload, _, err := decodeCompact(template)
	if err != nil {
		t.Fatal(err)
	}
	key := s.realm.ActiveKey("ES256")
	for i := range 2000 {
		if i%200 == 0 {
			s.advance(2900 * time.Millisecond) // 29 s in all
		}
		for kind, raw := range map[string]string{
			"rubbish":      strings.Repeat("x", i%100),
			"invented":     key.Sign("none", fmt.Appendf(nil, `{"alg":"ES256","typ":"logout+jwt","kid":"invented-%d"}`, i), payload),
			"badly signed": template[:len(template)-8] + "AAAAAAAA",
		} {
			if _, err := s.issuers.VerifyLogout(t.Context(), raw, appOnly); ReasonOf(err) == "" {
				t.Fatalf("%s: %v", kind, err)
			}
		}
	}
	wantVerified(t, s.issuers, good, "", true, "after")
	if n := s.realm.Requests(kctest.Certs); n > 2 {
		t.Errorf("%d fetches, want at most 2", n)
	}
}

func TestLogoutWithoutKeysIsNoVerdictOnTheToken(t *testing.T) {
	s := newSeenStage(t)
	raw := s.realm.LogoutToken(s.alice, "x")
	s.realm.Break(kctest.Status(http.StatusBadGateway))
	if _, err := s.issuers.VerifyLogout(t.Context(), raw, appOnly); ReasonOf(err) != ReasonKeysUnavailable {
		t.Errorf("got %v", err)
	}
}

func TestLogoutsOfRealmsOfATemplate(t *testing.T) {
	s := newTenants(t)
	one := s.realm("t1").LogoutToken(kctest.User{ID: "alice"}, "x")
	logout, err := s.issuers.VerifyLogout(t.Context(), one, appOnly)
	if err != nil || logout.Tenant != "t1" || logout.Issuer != s.realm("t1").Issuer() || logout.Subject != "alice" {
		t.Errorf("got %+v, %v", logout, err)
	}
	// BL-008, BL-018: a realm speaks for its own users only.
	stolen := s.realm("t1").LogoutToken(kctest.User{ID: "alice"}, "x", kctest.Claim("iss", s.realm("t2").Issuer()))
	if _, err := s.issuers.VerifyLogout(t.Context(), stolen, appOnly); ReasonOf(err) != ReasonUnknownKey {
		t.Errorf("for another realm: %v", err)
	}
	forbidden := s.realm("forbidden").LogoutToken(kctest.User{ID: "alice"}, "x")
	if _, err := s.issuers.VerifyLogout(t.Context(), forbidden, appOnly); ReasonOf(err) != ReasonIssuer {
		t.Errorf("of a tenant that is not allowed: %v", err)
	}
	opened := s.opened.Load()
	bad := s.realm("t9").LogoutToken(kctest.User{ID: "alice"}, "x", kctest.Without("events"))
	if _, err := s.issuers.VerifyLogout(t.Context(), bad, appOnly); ReasonOf(err) != ReasonTokenType || s.opened.Load() != opened {
		t.Errorf("no logout token opens a realm: %v, %d", err, s.opened.Load())
	}
	nobody := s.invented("nobody")
	if _, err := s.issuers.VerifyLogout(t.Context(), nobody, appOnly); ReasonOf(err) != ReasonHeaderType {
		t.Errorf("an access token of a realm that does not exist: %v", err)
	}
}

func TestALogoutIsVerifiedByTheSettingsOfItsIssuer(t *testing.T) {
	s := newStage(t, func(_ *KeySetConfig, c *Config) { c.Algorithms = []string{"ES256"} })
	wide, err := New(Config{
		Issuer: "https://other.test/realms/x", Keys: otherKeys(t), Algorithms: []string{"ES256", "EdDSA"}, MaxSize: 1 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	issuers, err := NewIssuers(nil, wide, s.verifier)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(options ...kctest.Option) (Logout, Reason) {
		logout, err := issuers.VerifyLogout(t.Context(), s.realm.LogoutToken(s.alice, "x", options...), appOnly)
		return logout, ReasonOf(err)
	}
	if logout, reason := verify(); reason != "" || logout.Index != 1 {
		t.Errorf("got %+v, %q", logout, reason)
	}
	if _, reason := verify(kctest.Algorithm("EdDSA")); reason != ReasonAlgorithm {
		t.Errorf("another's algorithm: %q", reason)
	}
	if _, reason := verify(kctest.Claim("x", strings.Repeat("x", 20_000))); reason != ReasonTooLarge {
		t.Errorf("another's size: %q", reason)
	}
}

func FuzzLogoutToken(f *testing.F) {
	meta, rows := forgedTokens(f)
	for _, row := range rows {
		f.Add(row.Token)
	}
	v, _ := verifierOf(f, meta.Issuer, readFile(f, "forged", "jwks.json"), time.Unix(meta.Now, 0))
	issuers, err := NewIssuers(nil, v)
	if err != nil {
		f.Fatal(err)
	}
	genuine := make(map[string]bool)
	for _, row := range rows {
		genuine[row.Token] = row.Kind == "logout" && row.Expect == "accept"
	}
	f.Fuzz(func(t *testing.T, raw string) {
		logout, err := issuers.VerifyLogout(t.Context(), raw, appOnly)
		switch {
		case err == nil && (!genuine[raw] || logout.Subject != meta.Alice):
			t.Errorf("accepted as a logout of %+v", logout)
		case err != nil && ReasonOf(err) == "":
			t.Errorf("refused without a reason: %v", err)
		}
	})
}

package token

import (
	"testing"
)

func TestWhatIsNoBearerTokenIsToldFromBadOnes(t *testing.T) {
	s := newTenants(t)
	v, err := NewForRealms(Config{Now: s.now}, s.realms, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	issuers, err := NewIssuers(seenOf(t, SeenConfig{Now: s.now}), v)
	if err != nil {
		t.Fatal(err)
	}
	good := s.token("t1")
	if _, err := issuers.Verify(t.Context(), good); err != nil { // now it is remembered
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		raw  string
		want Reason
	}{
		"a token that was seen":                     {good, ""},
		"HS-008 two joined by a comma":              {good + ", Bearer " + good, ReasonCharacters},
		"two joined by a comma and no space":        {good + "," + good, ReasonCharacters},
		"HS-012 a parameter after the token":        {good + ";x=1", ReasonCharacters},
		"a trailing space":                          {good + " ", ReasonCharacters},
		"a leading space":                           {" " + good, ReasonCharacters},
		"a line end":                                {good + "\n", ReasonCharacters},
		"HS-017 a NUL":                              {good + "\x00", ReasonCharacters},
		"quoted":                                    {`"` + good + `"`, ReasonCharacters},
		"padding alone":                             {"==", ReasonCharacters},
		"padding inside":                            {"a=b", ReasonCharacters},
		"nothing":                                   {"", ReasonCharacters},
		"a byte that is not ASCII":                  {"t\xc3\xa9", ReasonCharacters},
		"letters, digits, signs and padding":        {"aZ09-._~+/==", ReasonMalformed},
		"a good one, padded":                        {good + "=", ReasonMalformed},
		"too long, so that nobody looks through it": {string(make([]byte, defaultMaxSize+1)), ReasonTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := issuers.Verify(t.Context(), test.raw)
			if got := ReasonOf(err); got != test.want || (err == nil) != (test.want == "") {
				t.Errorf("got %q (%v), want %q", got, err, test.want)
			}
		})
	}
}

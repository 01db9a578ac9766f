package dpop

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// nonces returns a maker of nonces at a time that can be changed.
func nonces(t testing.TB, secret byte, life time.Duration, at *time.Time) *Nonce {
	t.Helper()
	n, err := NewNonce(NonceConfig{Secret: bytes.Repeat([]byte{secret}, 32), Life: life, Now: func() time.Time { return *at }})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNoncesOfOneNodeAreTakenByAnother(t *testing.T) {
	now := time.Unix(1800000000, 0) // the beginning of a period of a minute
	issuing, checking := nonces(t, 1, time.Minute, &now), nonces(t, 1, time.Minute, &now)
	first := issuing.Issue()
	if len(first) != 22 {
		t.Errorf("%q has not 128 bits", first)
	}
	for name, test := range map[string]struct {
		after      time.Duration
		good, same bool
	}{
		"at once":                       {0, true, true},
		"at the end of its period":      {time.Minute - 1, true, true},
		"in the next period":            {time.Minute, true, false},
		"at the end of the next period": {2*time.Minute - 1, true, false},
		"in the period after the next":  {2 * time.Minute, false, false},
		"before it was issued, by skew": {-1, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			later := time.Unix(1800000000, 0).Add(test.after)
			issuing, checking := nonces(t, 1, time.Minute, &later), nonces(t, 1, time.Minute, &later)
			if checking.Check(first) != test.good {
				t.Errorf("taken: %v", !test.good)
			}
			if (issuing.Issue() == first) != test.same {
				t.Errorf("issued again: %v", !test.same)
			}
		})
	}
	for name, other := range map[string]*Nonce{
		"another secret": nonces(t, 2, time.Minute, &now),
		"another life":   nonces(t, 1, time.Hour, &now),
	} {
		if other.Check(first) {
			t.Errorf("taken with %s", name)
		}
	}
	for _, bad := range []string{"", first[:21], first + "A", first + "=", "AAAAAAAAAAAAAAAAAAAAAA"} {
		if checking.Check(bad) {
			t.Errorf("took %q", bad)
		}
	}
}

func TestNonceRolloverAcrossTwoVerifiers(t *testing.T) {
	now := start.Truncate(time.Minute)
	replay := newMemory()
	verifier := func() *Verifier {
		v, err := New(Config{
			Replay: replay, Nonce: nonces(t, 1, time.Minute, &now), Now: func() time.Time { return now },
		})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	here, there := verifier(), verifier()
	d := newDraft(t, "ES256")
	send := func(v *Verifier, nonce, id string) error {
		d.claims["iat"], d.claims["jti"], d.claims["nonce"] = now.Unix(), id, nonce
		d.request.Proof = d.proof()
		return v.Verify(t.Context(), d.request)
	}
	old := here.cfg.Nonce.Issue()
	if err := send(there, old, "1"); err != nil {
		t.Errorf("in its period: %v", err)
	}
	now = now.Add(time.Minute)
	if err := send(there, old, "2"); err != nil {
		t.Errorf("in the next: %v", err)
	}
	if err := send(here, old, "2"); ReasonOf(err) != ReasonReplay {
		t.Errorf("used at the other: %v", err)
	}
	now = now.Add(time.Minute)
	if err := send(there, old, "3"); !errors.Is(err, ErrNonce) || ReasonOf(err) != ReasonNonce {
		t.Errorf("after that: %v", err)
	}
	if err := send(there, here.cfg.Nonce.Issue(), "3"); err != nil {
		t.Errorf("tried again with the new one: %v", err)
	}
}

// A proof that only lacks the nonce is not used up by that, and other faults come first.
func TestOnlyGoodProofsAreAskedForANonce(t *testing.T) {
	d := newDraft(t, "ES256")
	now := start
	d.config.Nonce = nonces(t, 1, time.Minute, &now)
	for name, nonce := range map[string]string{"none": "", "another": "AAAAAAAAAAAAAAAAAAAAAA"} {
		d.claims["nonce"] = nonce
		if err := d.verify(); !errors.Is(err, ErrNonce) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if d.replay.asked > 0 {
		t.Error("took up a place in the memory for replays")
	}
	d.claims["htm"] = "POST"
	if err := d.verify(); errors.Is(err, ErrNonce) || ReasonOf(err) != ReasonMethod {
		t.Error(err)
	}
}

func TestNoncesNeedASecretAndALife(t *testing.T) {
	for name, cfg := range map[string]NonceConfig{
		"no secret":                      {},
		"secret of 15 bytes":             {Secret: make([]byte, 15)},
		"life negative":                  {Secret: make([]byte, 16), Life: -time.Minute},
		"life below a second":            {Secret: make([]byte, 16), Life: time.Millisecond},
		"life of one and a half seconds": {Secret: make([]byte, 16), Life: 1500 * time.Millisecond},
	} {
		if _, err := NewNonce(cfg); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

package dpop

import (
	"crypto/ecdsa"
	"errors"
	"maps"
	"math/big"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestAProofIsGoodOnce(t *testing.T) {
	d := newDraft(t, "ES256")
	d.request.Proof = d.proof()
	v := d.verifier()
	verify := func(edit func(*Request)) Reason {
		r := d.request
		r.URLs = slices.Clone(r.URLs)
		claims := maps.Clone(d.claims)
		edit(&r)
		d.claims = claims
		return ReasonOf(v.Verify(t.Context(), r))
	}
	if reason := verify(func(*Request) {}); reason != "" {
		t.Fatal(reason)
	}
	for name, edit := range map[string]func(*Request){
		"PP-005 proof replay":                func(*Request) {},
		"PP-005 proof replay, another query": func(r *Request) { r.URLs[0] += "?x" },
		"PP-005 proof replay, another way to it": func(r *Request) {
			r.URLs = []string{"https://other.example/", strings.ToUpper(r.URLs[0][:20]) + r.URLs[0][20:]}
		},
		"PP-005 proof replay, signed once more":    func(r *Request) { r.Proof = d.proof() },
		"PP-005 proof replay, with another method": func(r *Request) { d.claims["htm"], r.Method = "POST", "POST"; r.Proof = d.proof() },
		"PP-005 proof replay, with another iat":    func(r *Request) { d.claims["iat"] = start.Unix() - 1; r.Proof = d.proof() },
		"PP-005 proof replay, signature's twin": func(r *Request) {
			// With (r, s), (r, n−s) is a signature too, and needs no key to be made.
			d.signature = func(_ string, good []byte) []byte {
				key := d.key.(*ecdsa.PrivateKey)
				s := new(big.Int).SetBytes(good[32:])
				return joined(key, new(big.Int).SetBytes(good[:32]), s.Sub(key.Params().N, s))
			}
			r.Proof = d.proof()
			d.signature = nil
		},
		"PP-005 proof replay, htu spelt otherwise": func(r *Request) {
			d.claims["htu"] = "https://resource.example.org:443/protected%72esource?x"
			r.Proof = d.proof()
		},
	} {
		t.Run(name, func(t *testing.T) {
			if reason := verify(edit); reason != ReasonReplay {
				t.Errorf("%q", reason)
			}
		})
	}
}

// RFC 9449 §4.2, §11.1: an id has to be unique for one key and URL only.
func TestOthersMayUseTheSameID(t *testing.T) {
	d := newDraft(t, "ES256")
	if err := d.verify(); err != nil {
		t.Fatal(err)
	}
	other := newDraft(t, "EdDSA")
	other.config.Replay = d.replay
	if err := other.verify(); err != nil {
		t.Errorf("another key: %v", err)
	}
	d.claims["htu"], d.request.URLs = resource+"/2", []string{resource + "/2"}
	if err := d.verify(); err != nil {
		t.Errorf("another URL: %v", err)
	}
	origin := "https://other.example.org/protectedresource"
	d.claims["htu"], d.request.URLs = origin, []string{origin}
	if err := d.verify(); err != nil {
		t.Errorf("another host: %v", err)
	}
	// Together with the path, this id reads as before.
	d.claims["jti"], d.claims["htu"], d.request.URLs = "/2e1j3V_bKic8-LAEB", resource, []string{resource}
	if err := d.verify(); err != nil {
		t.Errorf("another id: %v", err)
	}
}

func TestOfManyAtOnceOneIsTheFirst(t *testing.T) {
	d := newDraft(t, "ES256")
	d.request.Proof = d.proof()
	v := d.verifier()
	var accepted atomic.Int64
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if err := v.Verify(t.Context(), d.request); err == nil {
				accepted.Add(1)
			}
		})
	}
	all.Wait()
	if accepted.Load() != 1 {
		t.Errorf("%d were accepted", accepted.Load())
	}
}

// A proof is remembered for longer than any node takes it, whose clock may be late.
func TestTheMemoryOutlivesTheProof(t *testing.T) {
	for name, test := range map[string]struct {
		age, want time.Duration
	}{
		"new":                       {0, 71 * time.Second},
		"as old as it may be":       {time.Minute, 11 * time.Second},
		"as far ahead as it may be": {-10 * time.Second, 81 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDraft(t, "ES256")
			d.claims["iat"] = start.Add(-test.age).Unix()
			if err := d.verify(); err != nil {
				t.Fatal(err)
			}
			for _, life := range d.replay.lives {
				if life != test.want {
					t.Errorf("%s, want %s", life, test.want)
				}
			}
			d.config.Now = func() time.Time { return start.Add(test.want) }
			if err := d.verify(); ReasonOf(err) != ReasonTooOld {
				t.Errorf("when it is forgotten: %v", err)
			}
		})
	}
}

func TestAMemoryThatFailsLetsNothingPass(t *testing.T) {
	d := newDraft(t, "ES256")
	d.replay.err = errors.New("out of reach")
	err := d.verify()
	if !errors.Is(err, ErrReplayUnknown) || !errors.Is(err, d.replay.err) || ReasonOf(err) != "" {
		t.Error(err)
	}
}

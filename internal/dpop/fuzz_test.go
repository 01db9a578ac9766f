package dpop

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// FuzzProof looks for a proof that is accepted and none of those signed, for refusals
// without a reason, and for what go-jose, an independent reader, would refuse.
func FuzzProof(f *testing.F) {
	genuine := map[string]bool{rfcResourceProof: true}
	f.Add(rfcResourceProof)
	f.Add(rfcTokenProof)
	f.Add(strings.Repeat(".", 100))
	f.Add("e30.e30.e30")
	for _, name := range allAlgorithms() {
		f.Add(newDraft(f, name).proof()) // bound to another key
	}
	f.Fuzz(func(t *testing.T, raw string) {
		v, err := New(Config{Replay: newMemory(), Algorithms: allAlgorithms(), Now: func() time.Time { return start }})
		if err != nil {
			t.Fatal(err)
		}
		r := rfcRequest()
		r.Proof = raw
		switch err := v.Verify(t.Context(), r); {
		case err == nil && !genuine[raw]:
			t.Error("accepted, though not signed")
		case err != nil && ReasonOf(err) == "":
			t.Errorf("refused without a reason: %v", err)
		}
		// With the binding out of the way, further checks are reached.
		p, err := v.parse(raw)
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Errorf("refused without a reason: %v", err)
			}
			return
		}
		if strings.Contains(raw, "\n") || p.key.thumbprint == "" || p.key.public == nil {
			t.Errorf("read as %+v", p)
		}
		_, _ = parseClaims(p.payload)
		if !p.algorithm.Verify(p.key.public, []byte(p.signed), p.signature) {
			return
		}
		parsed, err := jose.ParseSignedCompact(raw, everyAlgorithm())
		if err != nil {
			t.Fatalf("go-jose refuses to read it: %v", err)
		}
		if parsed.Signatures[0].Header.Algorithm == "Ed25519" { // a name go-jose does not know
			return
		}
		if _, err := parsed.Verify(p.key.public); err != nil {
			t.Errorf("go-jose refuses the signature: %v", err)
		}
	})
}

func everyAlgorithm() (all []jose.SignatureAlgorithm) {
	for _, name := range allAlgorithms() {
		all = append(all, jose.SignatureAlgorithm(name))
	}
	return all
}

package dpop

import (
	"context"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A megabyte in the field costs no more than to see its length.
func TestAMegabyteIsRefusedByItsSize(t *testing.T) {
	d := newDraft(t, "ES256")
	v := d.verifier()
	for name, raw := range map[string]string{
		"dots":    strings.Repeat(".", 1<<20),
		"letters": strings.Repeat("a", 1<<20),
		"a proof": rfcResourceProof + strings.Repeat("A", 1<<20),
	} {
		d.request.Proof = raw
		if err := v.Verify(t.Context(), d.request); ReasonOf(err) != ReasonTooLarge {
			t.Errorf("%s: %v", name, err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 100 {
			_ = v.Verify(t.Context(), d.request)
		}
		runtime.ReadMemStats(&after)
		if each := (after.TotalAlloc - before.TotalAlloc) / 100; each > 4<<10 {
			t.Errorf("%s: %d bytes allocated", name, each)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, name := range allAlgorithms() {
		b.Run(name, func(b *testing.B) {
			d := newDraft(b, name)
			d.config.Algorithms = []string{name}
			d.config.Replay = nothingSeen{}
			d.request.Proof = d.proof()
			v := d.verifier()
			b.ReportAllocs()
			for b.Loop() {
				if err := v.Verify(b.Context(), d.request); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for name, raw := range map[string]string{
		"1 MB of dots": strings.Repeat(".", 1<<20), "8 KiB of letters": strings.Repeat("a", 8<<10-2) + "..",
		"a header of 8 KiB": b64([]byte(`{"a":"`+strings.Repeat("a", 6000)+`"}`)) + "..",
		"many names":        b64([]byte(manyNames())) + "..",
		"many names inside": b64([]byte(`{"typ":`+manyNames()+`}`)) + "..",
		"another's proof":   rfcResourceProof,
	} {
		b.Run(name, func(b *testing.B) {
			d := newDraft(b, "ES256")
			d.request.Proof = raw
			v := d.verifier()
			b.ReportAllocs()
			for b.Loop() {
				if err := v.Verify(b.Context(), d.request); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
	b.Run("nonce", func(b *testing.B) {
		now := start
		n := nonces(b, 1, time.Minute, &now)
		nonce := n.Issue()
		b.ReportAllocs()
		for b.Loop() {
			if !n.Check(nonce) {
				b.Fatal("refused")
			}
		}
	})
}

// manyNames is the object of 6,000 bytes that costs most to read.
func manyNames() string {
	var text strings.Builder
	for i := 0; text.Len() < 6000-1; i++ {
		text.WriteString(`,"` + strconv.Itoa(i) + `":0`)
	}
	return "{" + text.String()[1:] + "}"
}

// nothingSeen is a memory that takes everything for new.
type nothingSeen struct{}

func (nothingSeen) First(context.Context, string, [32]byte, time.Duration) (bool, error) {
	return true, nil
}

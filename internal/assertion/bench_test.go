package assertion

import (
	"crypto/elliptic"
	"testing"
	"time"
)

func BenchmarkSignReused(b *testing.B) {
	s := newSigner(b, nil)
	c := claimsAt(time.Now().Add(24 * time.Hour))
	b.ReportAllocs()
	for b.Loop() {
		sign(b, s, c)
	}
}

func BenchmarkSignEdDSA(b *testing.B) { benchmarkSign(b, mustParse(b, pkcs8(b, newEd25519(b)))) }

func BenchmarkSignES256(b *testing.B) {
	benchmarkSign(b, mustParse(b, pkcs8(b, newECDSA(b, elliptic.P256()))))
}

func benchmarkSign(b *testing.B, key *Key) {
	b.Helper()
	s := newSigner(b, func(c *Config) { c.Keys = []*Key{key} })
	c := claimsAt(time.Now().Add(24 * time.Hour))
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.sign(&c, now, now.Add(time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
}

package dpop

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
	"time"
)

const (
	defaultNonceLife = 5 * time.Minute
	minSecret        = 16 // bytes: as much as a nonce has
)

// NonceConfig is what nonces are made from.
type NonceConfig struct {
	// Secret, of at least 16 random bytes. Nodes with the same secret and life accept
	// each other's nonces, also after a restart. Required.
	Secret []byte

	// Life is how long a nonce is issued; it is accepted for as long again. Whole
	// seconds. Default: 5 min.
	Life time.Duration

	// Now is the clock. Default: [time.Now].
	Now func() time.Time
}

// Nonce makes and checks the server's nonces (RFC 9449 §8, §9), with which a proof
// shows that it was not made long before. It remembers none of them: all clients get
// the same one at the same time, a keyed hash of the time. Safe for concurrent use.
type Nonce struct {
	secret []byte
	life   int64 // seconds
	now    func() time.Time
}

// NewNonce returns a maker of nonces.
func NewNonce(cfg NonceConfig) (*Nonce, error) {
	if cfg.Life == 0 {
		cfg.Life = defaultNonceLife
	}
	switch {
	case len(cfg.Secret) < minSecret:
		return nil, errors.New("nonce secret: fewer than 16 bytes")
	case cfg.Life < time.Second || cfg.Life%time.Second != 0:
		return nil, errors.New("nonce life: not whole seconds, one or more")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Nonce{slices.Clone(cfg.Secret), int64(cfg.Life / time.Second), cfg.Now}, nil
}

// Issue returns the nonce to send as DPoP-Nonce now.
func (n *Nonce) Issue() string { return n.at(n.period()) }

// Check reports whether nonce is the one issued now or the one before.
func (n *Nonce) Check(nonce string) bool {
	now, given := n.period(), []byte(nonce)
	return hmac.Equal(given, []byte(n.at(now))) || hmac.Equal(given, []byte(n.at(now-1)))
}

func (n *Nonce) period() int64 { return n.now().Unix() / n.life }

func (n *Nonce) at(period int64) string {
	mac := hmac.New(sha256.New, n.secret)
	// With a name of its own, in case the secret serves something else as well.
	_, _ = mac.Write(binary.BigEndian.AppendUint64([]byte("DPoP-Nonce"), uint64(period))) // a hash returns no error
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

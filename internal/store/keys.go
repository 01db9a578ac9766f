package store

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
)

const (
	// DefaultPrefix begins every key unless the configuration names another.
	DefaultPrefix = "kca"

	// formatVersion is the version of the values behind our keys. Programs of
	// different versions do not see each other's entries.
	formatVersion = "3"

	// kindMember marks keys under which a member is stored.
	kindMember = "m"

	separator = ":"

	maxPartLength = 64 // of prefix and namespace, in bytes

	// maxKnownIssuers bounds the digests kept. A realm template can name more
	// issuers than that; the digests of the others are computed each time.
	maxKnownIssuers = 1024
)

// Keys builds the keys of one configuration. There is no other place that
// does, so what was stored is found again, and deleted.
//
// A key reads
//
//	<prefix>:<format version>:<tenant>:<kind>:<namespace>:<issuer digest>:<kc_id>
//
// and no two members share one: no part before the last can contain the
// separator, and the last one is taken as it is.
//
// Keys is safe for concurrent use.
type Keys struct {
	head      string // "<prefix>:<format version>:"
	namespace string

	// middles has ":<kind>:<namespace>:<issuer digest>:" by issuer. It is copied
	// on each change, so that reading it costs neither a lock nor an allocation.
	middles atomic.Pointer[map[string]string]
}

// NewKeys returns the builder of keys with this prefix ("" for
// [DefaultPrefix]) and namespace: a digest by [Namespace], or a name from the
// configuration. Both are 1 to 64 letters, digits, dots, hyphens or
// underscores.
func NewKeys(prefix, namespace string) (*Keys, error) {
	if prefix == "" {
		prefix = DefaultPrefix
	}
	if err := checkPart("key prefix", prefix); err != nil {
		return nil, err
	}
	if err := checkPart("namespace", namespace); err != nil {
		return nil, err
	}
	k := &Keys{head: prefix + separator + formatVersion + separator, namespace: namespace}
	k.middles.Store(&map[string]string{})
	return k, nil
}

// Member returns the key of one user of one issuer in one tenant. It allocates
// the key and nothing else for an issuer seen before.
func (k *Keys) Member(tenant, issuer, kcID string) string {
	return k.MemberWith(tenant, issuer, kcID, "")
}

// MemberWith is Member where the resolvers are asked with claims of the token
// besides: with another digest of them ([Digest]) it is another key. The digest
// stands behind that of the issuer, with a dot between.
func (k *Keys) MemberWith(tenant, issuer, kcID, claims string) string {
	middle, ok := (*k.middles.Load())[issuer]
	if !ok {
		middle = k.addIssuer(issuer)
	}
	if !plainTenant(tenant) {
		tenant = disguise(tenant)
	}
	if claims != "" {
		middle = strings.TrimSuffix(middle, separator) + "." + claims + separator
	}
	return k.head + tenant + middle + kcID
}

func (k *Keys) addIssuer(issuer string) string {
	middle := separator + kindMember + separator + k.namespace + separator + digest(issuer) + separator
	for {
		old := k.middles.Load()
		if _, ok := (*old)[issuer]; ok || len(*old) >= maxKnownIssuers {
			return middle
		}
		grown := make(map[string]string, len(*old)+1)
		maps.Copy(grown, *old)
		grown[issuer] = middle
		if k.middles.CompareAndSwap(old, &grown) {
			return middle
		}
	}
}

// What a store has beside its members. None of these keys can be a member's,
// which has six separators before the kc_id.

// logKey is the stream that is the flush log.
func logKey(prefix string) string { return storeKey(prefix, "log") }

// probeKey is never set: the rights to read members are enough to probe it.
func probeKey(prefix string) string { return storeKey(prefix, "probe") }

// claimKey stands for as long as its id is claimed; see [Store.Claim].
func claimKey(prefix, id string) string { return storeKey(prefix, "claim") + separator + digest(id) }

func storeKey(prefix, name string) string {
	return prefix + separator + formatVersion + separator + name
}

// Digest returns a digest of texts, in their order, that differs for any other
// texts: 22 characters of base64url.
func Digest(texts ...string) string { return digest(texts...) }

// Namespace returns a digest of what makes the answers of one configuration's
// resolvers different from another's: their identities, in their order.
func Namespace(identities ...string) string { return digest(identities...) }

// digest returns 128 bits of SHA-256 over the parts, each preceded by its
// length, in the alphabet of base64url.
func digest(parts ...string) string {
	h := sha256.New()
	var length [8]byte
	for _, part := range parts {
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		_, _ = h.Write(length[:])
		_, _ = h.Write([]byte(part))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

// plainTenant tells whether a tenant can stand in a key as it is. Whatever the
// configured pattern, tenants are like that; this is for the day they are not.
func plainTenant(tenant string) bool {
	for i := range len(tenant) {
		switch c := tenant[i]; {
		case c <= ' ' || c >= 0x7f, c == ':', c == '{', c == '}':
			return false
		}
	}
	return tenant != ""
}

// disguise returns what stands in a key for a tenant that is not plain. It
// begins with a brace, as no plain tenant does, so the two cannot meet.
func disguise(tenant string) string {
	sum := sha256.Sum256([]byte(tenant))
	return "{" + base64.RawURLEncoding.EncodeToString(sum[:]) + "}"
}

func checkPart(what, part string) error {
	if part == "" || len(part) > maxPartLength {
		return fmt.Errorf("%s has %d bytes: want 1 to %d", what, len(part), maxPartLength)
	}
	for _, c := range part {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return fmt.Errorf("%s %q contains %q: use letters, digits, '.', '-' and '_'", what, part, c)
		}
	}
	return nil
}

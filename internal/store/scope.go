package store

import (
	"encoding/binary"
	"errors"
	"hash/maphash"
)

// Scope says whose entries a flush makes invalid. These can be named:
//
//	All                 everybody
//	Tenant              all members of a tenant
//	Tenant, KCID        one member, whatever issuer and namespace
//	Tenant, MemberID    the same by the application's id
//	Issuer, KCID        one user of an issuer, in all tenants
//	KCID                one user of any issuer, in all tenants
//
// Everything else is no scope, the zero value included, so that nobody flushes
// everybody by leaving something out.
type Scope struct {
	All                            bool
	Tenant, KCID, MemberID, Issuer string
}

// ErrScope says that a [Scope] names nobody, or cannot be stored.
var ErrScope = errors.New("not a scope: give all, tenant, tenant and kc_id, tenant and member id, issuer and kc_id, or kc_id")

// maxNameLength bounds each name in an event of the log, in bytes.
const maxNameLength = 2048

// scopeKind is one way to say whom a flush is about. Each entry is in exactly
// one scope of each kind.
type scopeKind uint8

const (
	scopeAll scopeKind = iota
	scopeTenant
	scopeMember
	scopeMemberID
	scopeUser
	scopeKCID
	scopeKey // of one key: deletions, which are no events of the log
	scopeKinds

	// scopeSomeID is raised along with every scopeMemberID of a tenant, for
	// look-ups that do not know yet which id their member has.
	scopeSomeID
)

// kind tells the scopes apart.
func (s Scope) kind() (scopeKind, error) {
	for _, name := range []string{s.Tenant, s.KCID, s.MemberID, s.Issuer} {
		if len(name) > maxNameLength {
			return 0, ErrScope
		}
	}
	tenant, kcID, memberID, issuer := s.Tenant != "", s.KCID != "", s.MemberID != "", s.Issuer != ""
	switch {
	case s.All:
		if tenant || kcID || memberID || issuer {
			return 0, ErrScope
		}
		return scopeAll, nil
	case tenant && memberID && !kcID && !issuer:
		return scopeMemberID, nil
	case tenant && kcID && !memberID && !issuer:
		return scopeMember, nil
	case tenant && !kcID && !memberID && !issuer:
		return scopeTenant, nil
	case issuer && kcID && !tenant && !memberID:
		return scopeUser, nil
	case kcID && !tenant && !memberID && !issuer:
		return scopeKCID, nil
	default:
		return 0, ErrScope
	}
}

// places are the fences that an entry has to pass, one of each kind.
type places [scopeKinds]uint16

// hasher turns scopes into places. Scopes that share a place are flushed
// together, which is not wrong, only more than was asked for.
type hasher struct{ seed maphash.Seed }

// entry returns the places of an entry. With "" for the member's id, which
// only the resolver tells, any flush by such an id in the tenant counts.
func (h hasher) entry(key string, want *Want, memberID string) places {
	return places{
		scopeAll:      h.place(scopeAll, "", ""),
		scopeTenant:   h.place(scopeTenant, want.Tenant, ""),
		scopeMember:   h.place(scopeMember, want.Tenant, want.KCID),
		scopeMemberID: h.memberID(want, memberID),
		scopeUser:     h.place(scopeUser, want.Issuer, want.KCID),
		scopeKCID:     h.place(scopeKCID, want.KCID, ""),
		scopeKey:      h.key(key),
	}
}

// memberID is the place that depends on what the resolver told.
func (h hasher) memberID(want *Want, memberID string) uint16 {
	if memberID == "" {
		return h.place(scopeSomeID, want.Tenant, "")
	}
	return h.place(scopeMemberID, want.Tenant, memberID)
}

func (h hasher) key(key string) uint16 { return h.place(scopeKey, key, "") }

// scope returns the places that a flush raises: one, or two for a member id.
// The scope is a valid one.
func (h hasher) scope(s Scope) []uint16 {
	switch kind, _ := s.kind(); kind {
	case scopeTenant:
		return []uint16{h.place(kind, s.Tenant, "")}
	case scopeMember:
		return []uint16{h.place(kind, s.Tenant, s.KCID)}
	case scopeMemberID:
		return []uint16{h.place(kind, s.Tenant, s.MemberID), h.place(scopeSomeID, s.Tenant, "")}
	case scopeUser:
		return []uint16{h.place(kind, s.Issuer, s.KCID)}
	case scopeKCID:
		return []uint16{h.place(kind, s.KCID, "")}
	default:
		return []uint16{h.place(scopeAll, "", "")}
	}
}

// place allocates nothing. The first part's length keeps the parts apart.
func (h hasher) place(kind scopeKind, a, b string) uint16 {
	var hash maphash.Hash
	hash.SetSeed(h.seed)
	var head [9]byte
	head[0] = byte(kind)
	binary.LittleEndian.PutUint64(head[1:], uint64(len(a)))
	_, _ = hash.Write(head[:])
	_, _ = hash.WriteString(a)
	_, _ = hash.WriteString(b)
	return uint16(hash.Sum64() % fenceSlots)
}

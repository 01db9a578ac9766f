package store

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strconv"
	"time"
)

// The flush log is one Redis stream, <prefix>:<format version>:log, and its
// events are entries of plain fields. Any program may append one:
//
//	XADD kca:3:log MAXLEN ~ 100000 * kind flush scope all
//	XADD kca:3:log MAXLEN ~ 100000 * kind flush tenant acme scope tenant
//	XADD kca:3:log MAXLEN ~ 100000 * kind flush scope member tenant acme kc_id 8d0c…
//	XADD kca:3:log MAXLEN ~ 100000 * kind flush scope member tenant acme member_id 4711
//	XADD kca:3:log MAXLEN ~ 100000 * kind flush scope user issuer https://… kc_id 8d0c…
//	XADD kca:3:log MAXLEN ~ 100000 * kind flush scope user kc_id 8d0c…
//
// A flush makes entries whose loading began before it invalid: of everybody, of
// a tenant, of a member, of a user in all tenants (of any issuer if none is
// given).
//
//	kind logout issuer https://… sid … sub … iat 1767225600 until 1767312000
//
// A logout refuses tokens of that issuer until the second `until` (Unix time):
// with sid those of that session; with sub alone those of that user whose own
// iat is not after `iat`. If sub is there it is a flush of that user too.
//
// Whoever can write to Redis can write logouts, so they are bounded by who reads
// them: none lasts longer than [Config.MaxLogoutLife] from now, whatever its
// `until` says; one with `until` in the past, or `iat` more than five minutes
// ahead, is ignored. Nodes say those again that the log is about to lose to
// trimming.
//
//	kind generation id 5f0c…
//
// A generation begins the log anew: entries with another generation, or a
// position before this event, are invalid. Only nodes append it, when they find
// none, or find that events were lost.
//
// `ref` names an event: a random text, by which its writer finds it again, and by
// which events that say the same are told apart, should one be lost and the other
// get its id. Nodes always give one. Readers find no other meaning in it. They
// ignore fields and kinds they do not know. An event without a kind, and a flush
// that cannot be read, is taken for a flush of everybody. None of more than 8 KiB
// can be read.
const (
	fieldKind     = "kind"
	fieldScope    = "scope"
	fieldTenant   = "tenant"
	fieldKCID     = "kc_id"
	fieldMemberID = "member_id"
	fieldIssuer   = "issuer"
	fieldSID      = "sid"
	fieldSub      = "sub"
	fieldIssuedAt = "iat"
	fieldUntil    = "until"
	fieldID       = "id"
	fieldRef      = "ref"

	kindFlush      = "flush"
	kindLogout     = "logout"
	kindGeneration = "generation"

	nameAll    = "all"
	nameTenant = "tenant"
	nameMember = "member"
	nameUser   = "user"
)

// event is one entry of the flush log. Which fields count depends on its kind.
type event struct {
	kind       string // "" for one that means nothing to us
	scope      Scope  // of a flush, or of the user of a logout; see flushes
	logout     tombstone
	generation string
	ref        string
}

// flushes tells whether the event makes entries invalid: those in its scope.
func (e *event) flushes() bool { return e.kind != "" && e.scope != Scope{} }

// errMalformed says that an event is not one of those documented.
var errMalformed = errors.New("malformed event in the flush log")

// newRef returns 64 random bits, enough to tell the events in flight apart.
func newRef() string { return randomHex(8) }

// newGeneration returns 128 random bits: no two generations are ever the same.
func newGeneration() string { return randomHex(16) }

func randomHex(n int) string {
	random := make([]byte, n)
	_, _ = rand.Read(random) // never fails
	return hex.EncodeToString(random)
}

func flushEvent(scope Scope) event {
	return event{kind: kindFlush, scope: scope, ref: newRef()}
}

func logoutEvent(t tombstone) event {
	e := event{kind: kindLogout, logout: t, ref: newRef()}
	if t.sub != "" {
		e.scope = Scope{Issuer: t.issuer, KCID: t.sub}
	}
	return e
}

// fields returns the event as it is appended: names and values in turn.
func (e *event) fields() []string {
	fields := []string{fieldKind, e.kind}
	add := func(name, value string) {
		if value != "" {
			fields = append(fields, name, value)
		}
	}
	switch e.kind {
	case kindFlush:
		add(fieldScope, scopeName(e.scope))
		add(fieldTenant, e.scope.Tenant)
		add(fieldIssuer, e.scope.Issuer)
		add(fieldKCID, e.scope.KCID)
		add(fieldMemberID, e.scope.MemberID)
	case kindLogout:
		add(fieldIssuer, e.logout.issuer)
		add(fieldSID, e.logout.sid)
		add(fieldSub, e.logout.sub)
		add(fieldIssuedAt, strconv.FormatInt(e.logout.issuedAt, 10))
		add(fieldUntil, strconv.FormatInt(e.logout.until, 10))
	case kindGeneration:
		add(fieldID, e.generation)
	}
	add(fieldRef, e.ref)
	return fields
}

func scopeName(s Scope) string {
	switch kind, _ := s.kind(); kind {
	case scopeTenant:
		return nameTenant
	case scopeMember, scopeMemberID:
		return nameMember
	case scopeUser, scopeKCID:
		return nameUser
	default:
		return nameAll
	}
}

// parseEvent reads an event, whoever wrote it. With an error it returns what
// the event is taken for, which is the flush of everybody, or nothing.
func parseEvent(fields map[string]string) (event, error) {
	e := event{kind: fields[fieldKind], ref: fields[fieldRef]}
	if sizeOf(fields) > maxEventSize {
		if e.kind == kindLogout {
			return event{}, errMalformed
		}
		return event{kind: kindFlush, scope: Scope{All: true}}, errMalformed
	}
	switch e.kind {
	case kindFlush:
		if e.scope = parseScope(fields); e.scope == (Scope{}) {
			e.scope = Scope{All: true}
			return e, errMalformed
		}
		return e, nil
	case kindLogout:
		if !parseLogout(fields, &e) {
			return event{}, errMalformed
		}
		return e, nil
	case kindGeneration:
		if e.generation = fields[fieldID]; !isGeneration(e.generation) {
			return event{kind: kindFlush, scope: Scope{All: true}}, errMalformed
		}
		return e, nil
	case "":
		return event{kind: kindFlush, scope: Scope{All: true}}, errMalformed
	default:
		return event{}, nil
	}
}

// maxEventSize bounds the names and values of an event, in bytes. A flush whose
// two names are as long as names may be has about half of it.
const maxEventSize = 8 << 10

func sizeOf(fields map[string]string) (size int) {
	for name, value := range fields {
		size += len(name) + len(value)
	}
	return size
}

// parseScope returns the zero scope if there is none to be read.
func parseScope(fields map[string]string) Scope {
	var s Scope
	switch fields[fieldScope] {
	case nameAll:
		return Scope{All: true}
	case nameTenant:
		s = Scope{Tenant: fields[fieldTenant]}
	case nameMember:
		s = Scope{Tenant: fields[fieldTenant], KCID: fields[fieldKCID], MemberID: fields[fieldMemberID]}
		if s.Tenant == "" || (s.KCID == "") == (s.MemberID == "") {
			return Scope{}
		}
	case nameUser:
		s = Scope{Issuer: fields[fieldIssuer], KCID: fields[fieldKCID]}
	}
	if _, err := s.kind(); err != nil {
		return Scope{}
	}
	return s
}

func parseLogout(fields map[string]string, e *event) bool {
	issuedAt, first := strconv.ParseInt(fields[fieldIssuedAt], 10, 64)
	until, second := strconv.ParseInt(fields[fieldUntil], 10, 64)
	e.logout = tombstone{
		issuer: fields[fieldIssuer], sid: fields[fieldSID], sub: fields[fieldSub],
		issuedAt: issuedAt, until: until,
	}
	if first != nil || second != nil || e.logout.check() != nil {
		return false
	}
	if e.logout.sub != "" {
		e.scope = Scope{Issuer: e.logout.issuer, KCID: e.logout.sub}
	}
	return true
}

// A tombstone is what nodes remember of a [Logout].
type tombstone struct {
	issuer, sid, sub string
	issuedAt, until  int64 // Unix time in seconds
}

func (t tombstone) check() error {
	switch {
	case t.issuer == "", t.sid == "" && t.sub == "",
		len(t.issuer) > maxNameLength, len(t.sid) > maxIDLength, len(t.sub) > maxIDLength,
		t.issuedAt < 0, t.until < 0, t.issuedAt > maxUnix, t.until > maxUnix:
		return ErrLogout
	default:
		return nil
	}
}

const (
	maxIDLength = 512                 // of sid and sub, in bytes
	maxUnix     = maxUnixMilli / 1000 // no clock shows more
)

func (t tombstone) ended(now time.Time) bool { return t.until <= now.Unix() }

// id returns the session, if there is one, or the user.
func (t *tombstone) id() string { return cmp.Or(t.sid, t.sub) }

// ahead tells whether a logout comes from the future.
func (t *tombstone) ahead(now time.Time) bool { return t.issuedAt > now.Add(maxLogoutLead).Unix() }

// sameAs tells whether two are the logout of one session, or of one user.
func (t *tombstone) sameAs(other *tombstone) bool {
	return t.issuer == other.issuer && t.sid == other.sid && t.id() == other.id()
}

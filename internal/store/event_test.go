package store

import (
	"errors"
	"math"
	"strings"
	"testing"
)

// fieldsOf returns names and values in turn as the map that is read.
func fieldsOf(list []string) map[string]string {
	fields := map[string]string{}
	for i := 0; i < len(list); i += 2 {
		fields[list[i]] = list[i+1]
	}
	return fields
}

func TestEventsReadAsDocumented(t *testing.T) {
	const issuer = testIssuer
	tests := map[string]event{
		"kind flush scope all":                                   {kind: kindFlush, scope: Scope{All: true}},
		"kind flush scope tenant tenant acme":                    {kind: kindFlush, scope: Scope{Tenant: "acme"}},
		"kind flush scope member tenant acme kc_id 8d0c":         {kind: kindFlush, scope: Scope{Tenant: "acme", KCID: "8d0c"}},
		"kind flush scope member tenant acme member_id 4711":     {kind: kindFlush, scope: Scope{Tenant: "acme", MemberID: "4711"}},
		"kind flush scope user issuer " + issuer + " kc_id 8d0c": {kind: kindFlush, scope: Scope{Issuer: issuer, KCID: "8d0c"}},
		"kind flush scope user kc_id 8d0c":                       {kind: kindFlush, scope: Scope{KCID: "8d0c"}},
		"kind generation id 5f0c":                                {kind: kindGeneration, generation: "5f0c"},
		"kind logout issuer " + issuer + " sid s sub 8d0c iat 1767225600 until 1767312000": {
			kind: kindLogout, scope: Scope{Issuer: issuer, KCID: "8d0c"},
			logout: tombstone{issuer, "s", "8d0c", 1767225600, 1767312000},
		},
		"kind logout issuer " + issuer + " sid s iat 1767225600 until 1767312000": {
			kind: kindLogout, logout: tombstone{issuer, "s", "", 1767225600, 1767312000},
		},
	}
	for text, want := range tests {
		t.Run(text, func(t *testing.T) {
			if got := strings.Join(want.fields(), " "); got != text {
				t.Errorf("written as %s", got)
			}
			fields := fieldsOf(strings.Fields(text))
			fields["a field of the future"], fields[fieldRef] = "x", "r"
			want.ref = "r"
			if got, err := parseEvent(fields); err != nil || got != want {
				t.Errorf("read as %+v, error %v", got, err)
			}
		})
	}
}

func TestEventsThatCannotBeRead(t *testing.T) {
	everybody := event{kind: kindFlush, scope: Scope{All: true}}
	long := strings.Repeat("x", maxNameLength+1)
	tests := map[string]struct {
		text  string
		want  event
		valid bool
	}{
		"no kind":                            {"scope tenant tenant acme", everybody, false},
		"a kind of the future":               {"kind party scope all", event{}, true},
		"a kind in another case":             {"kind Flush scope tenant tenant acme", event{}, true},
		"a flush without a scope":            {"kind flush tenant acme", everybody, false},
		"a flush of an unknown scope":        {"kind flush scope galaxy tenant acme", everybody, false},
		"a flush of no tenant":               {"kind flush scope tenant", everybody, false},
		"a flush of no member":               {"kind flush scope member tenant acme", everybody, false},
		"a flush of a member of no tenant":   {"kind flush scope member kc_id 8d0c", everybody, false},
		"a flush of two members":             {"kind flush scope member tenant acme kc_id 8d0c member_id 4711", everybody, false},
		"a flush of no user":                 {"kind flush scope user issuer i", everybody, false},
		"a flush of a tenant that is a text": {"kind flush scope tenant tenant " + long, everybody, false},
		"a generation without an id":         {"kind generation", everybody, false},
		"a generation of other characters":   {"kind generation id é", everybody, false},
		"a logout of nobody":                 {"kind logout issuer i iat 1 until 2", event{}, false},
		"a logout of no issuer":              {"kind logout sid s iat 1 until 2", event{}, false},
		"a logout without iat":               {"kind logout issuer i sid s until 2", event{}, false},
		"a logout without until":             {"kind logout issuer i sid s iat 1", event{}, false},
		"a logout until no clock shows it":   {"kind logout issuer i sid s iat 1 until 253402300800", event{}, false},
		"a logout with a negative time":      {"kind logout issuer i sid s iat -1 until 2", event{}, false},
		"a logout of a sid that is a text":   {"kind logout iat 1 until 2 issuer i sid " + long, event{}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseEvent(fieldsOf(strings.Fields(test.text)))
			if got != test.want || (err == nil) != test.valid || err != nil && !errors.Is(err, errMalformed) {
				t.Errorf("read as %+v, error %v", got, err)
			}
		})
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add("flush", "member", "acme", "8d0c", "", "", "", "", "", "")
	f.Add("logout", "", "", "", "", testIssuer, "s", "8d0c", "1", "2")
	f.Fuzz(func(t *testing.T, kind, scope, tenant, kcID, memberID, issuer, sid, sub, iat, until string) {
		e, err := parseEvent(map[string]string{
			fieldKind: kind, fieldScope: scope, fieldTenant: tenant, fieldKCID: kcID, fieldMemberID: memberID,
			fieldIssuer: issuer, fieldSID: sid, fieldSub: sub, fieldIssuedAt: iat, fieldUntil: until,
		})
		if kind == kindFlush && !e.flushes() {
			t.Fatal("a flush that flushes nothing")
		}
		if _, kindErr := e.scope.kind(); e.flushes() && kindErr != nil {
			t.Fatalf("%+v is no scope", e.scope)
		}
		if again, _ := parseEvent(fieldsOf(e.fields())); err == nil && e.kind != "" && again != e {
			t.Fatalf("%+v became %+v", e, again)
		}
	})
}

func TestScopesThatAreNone(t *testing.T) {
	for name, scope := range map[string]Scope{
		"nobody":                           {},
		"everybody and somebody":           {All: true, Tenant: "acme"},
		"an issuer":                        {Issuer: testIssuer},
		"a member id of no tenant":         {MemberID: "4711"},
		"a member by both ids":             {Tenant: "acme", KCID: "8d0c", MemberID: "4711"},
		"an issuer's member of one tenant": {Tenant: "acme", KCID: "8d0c", Issuer: testIssuer},
		"a tenant that is a text":          {Tenant: strings.Repeat("x", maxNameLength+1)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestStore(t, Config{})
			before := s.fences.position()
			if flushed, err := s.Flush(t.Context(), scope, nil); !errors.Is(err, ErrScope) || flushed.Node {
				t.Errorf("%+v, error %v", flushed, err)
			}
			if s.fences.position() != before {
				t.Error("something was flushed")
			}
		})
	}
}

func TestPositionsPackToTheSafeSide(t *testing.T) {
	ordered := []position{
		{0, 0},
		{0, 1},
		{0, maxNumber},
		{0, maxNumber + 1},
		{0, math.MaxUint64},
		{1, 0},
		{1, 5},
		{1767225600000, 0},
		{1767225600000, maxNumber + 7},
		{1767225600001, 0},
		{maxMillis, 0},
		{maxMillis, math.MaxUint64},
		{maxMillis + 1, 0},
		{math.MaxUint64, math.MaxUint64},
	}
	for i, flush := range ordered {
		if parsed, ok := parsePosition(flush.String()); !ok || parsed != flush {
			t.Errorf("%v is read as %v", flush, parsed)
		}
		for j, entry := range ordered {
			if admitted := entry.packedDown() >= flush.packedUp(); admitted && j < i {
				t.Errorf("a flush at %v admits an entry from %v", flush, entry)
			}
		}
		exact := flush.number <= maxNumber && flush.millis <= maxMillis
		if admitted := flush.packedDown() >= flush.packedUp(); admitted != exact {
			t.Errorf("an entry from the flush at %v is admitted: %t", flush, admitted)
		}
	}
}

package store

import (
	"errors"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

var testTime = time.UnixMilli(1767225600000)

// alice returns a member of acme and the Want that looks for her.
func alice() (*member.Member, Want) {
	m := &member.Member{
		KCID: "8d0c5a3e-0000-4000-8000-000000000001", Tenant: "acme", Issuer: testIssuer,
		Active: true, ID: "4711",
		Attributes: map[string]member.Value{
			"roles": member.List("admin", "billing"), "team": member.Text("blue"), "none": member.List(),
		},
	}
	return m, Want{Tenant: m.Tenant, Issuer: testIssuer, KCID: m.KCID, TTL: time.Minute}
}

// aliceEntry returns her entry, loaded at testTime for one minute.
func aliceEntry() *Entry {
	m, _ := alice()
	return &Entry{
		Member: *m, Tenant: m.Tenant, Issuer: testIssuer, KCID: m.KCID,
		loaded: momentOf(testTime), life: time.Minute, keep: time.Minute,
	}
}

func TestEntryIsForWhomItNames(t *testing.T) {
	_, want := alice()
	tests := map[string]struct {
		change   func(*Entry, *Want)
		mismatch bool
	}{
		"the same member":                              {func(*Entry, *Want) {}, false},
		"a source that knows no issuer":                {func(e *Entry, _ *Want) { e.Member.Issuer = "" }, false},
		"CI-001 another user":                          {func(e *Entry, _ *Want) { e.KCID = "b" }, true},
		"CI-001 another user's record":                 {func(e *Entry, _ *Want) { e.Member.KCID = "b" }, true},
		"CI-002 another tenant":                        {func(e *Entry, _ *Want) { e.Tenant = "umbrella" }, true},
		"CI-002 another tenant's record":               {func(e *Entry, _ *Want) { e.Member.Tenant = "umbrella" }, true},
		"a tenant that differs in case":                {func(e *Entry, _ *Want) { e.Tenant, e.Member.Tenant = "Acme", "Acme" }, true},
		"another issuer":                               {func(e *Entry, _ *Want) { e.Issuer = "https://evil" }, true},
		"another issuer's record":                      {func(e *Entry, _ *Want) { e.Member.Issuer = "https://evil" }, true},
		"CI-026 nobody on both sides":                  {func(e *Entry, w *Want) { e.KCID, e.Member.KCID, w.KCID = "", "", "" }, true},
		"no tenant on both sides":                      {func(e *Entry, w *Want) { e.Tenant, e.Member.Tenant, w.Tenant = "", "", "" }, true},
		"no member at all":                             {func(e *Entry, _ *Want) { e.Member = member.Member{} }, true},
		"a kc_id with something after it":              {func(e *Entry, _ *Want) { e.KCID += "\x00" }, true},
		"an issuer with another case in its host name": {func(e *Entry, _ *Want) { e.Issuer = "https://SSO.example.com/realms/main" }, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			entry, want := aliceEntry(), want
			test.change(entry, &want)
			err := entry.For(want.Tenant, want.Issuer, want.KCID)
			if errors.Is(err, ErrMismatch) != test.mismatch {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestEntryIsFreshByWriterAndReader(t *testing.T) {
	tests := map[string]struct {
		life, age, ttl time.Duration
		want           bool
	}{
		"young":                                    {time.Minute, time.Second, time.Minute, true},
		"just loaded":                              {time.Minute, 0, time.Minute, true},
		"at the end of its writer's life":          {time.Minute, time.Minute, time.Hour, false},
		"just before that":                         {time.Minute, time.Minute - 1, time.Hour, true},
		"too old for an impatient reader":          {time.Hour, time.Minute, time.Minute, false},
		"CI-016 a writer that promises ten years":  {87600 * time.Hour, 2 * time.Minute, time.Minute, false},
		"from a clock slightly ahead":              {time.Minute, -ClockTolerance, time.Minute, true},
		"from the future":                          {time.Minute, -ClockTolerance - 1, time.Minute, false},
		"from the far future":                      {time.Minute, -1000000 * time.Hour, time.Minute, false},
		"a reader who accepts nothing":             {time.Minute, 0, 0, false},
		"a reader with a negative ttl":             {time.Minute, 0, -time.Second, false},
		"a negative ttl and a clock ahead of ours": {time.Minute, -ClockTolerance, -time.Second, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			entry := &Entry{loaded: momentOf(testTime), life: test.life}
			if got := entry.Fresh(testTime.Add(test.age), test.ttl); got != test.want {
				t.Errorf("fresh is %t", got)
			}
		})
	}
}

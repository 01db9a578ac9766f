package assertion

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"
)

// memory remembers assertions. They are found by what they say, not by where the token
// and the member stand in memory, so it keeps neither of them alive, and two sessions of
// a user share an assertion.
type memory struct {
	entries *otter.Cache[who, *made]
}

// who is whom an assertion is about.
type who struct{ subject, tenant, memberID string }

// made is an assertion that was given out.
type made struct {
	roles []string
	end   time.Time // exp
	text  string
}

// entryOverhead is what an entry costs beside its text, in bytes, about.
const entryOverhead = 300

func newMemory(maxBytes int64, now func() time.Time) (*memory, error) {
	options := &otter.Options[who, *made]{
		MaximumWeight: uint64(maxBytes),
		Weigher:       weigh,
		Logger:        &otter.NoopLogger{}, // it logs panics of callbacks, and ours do not
	}
	clock := time.Now
	if now != nil {
		clock, options.Clock = now, injectedClock(now)
	}
	options.ExpiryCalculator = otter.ExpiryWritingFunc(func(e otter.Entry[who, *made]) time.Duration {
		return max(e.Value.end.Sub(clock()), 1)
	})
	entries, err := otter.New(options)
	if err != nil {
		return nil, err
	}
	return &memory{entries}, nil
}

// find returns what was made for these claims, ends aside, or nil.
func (m *memory) find(c *Claims) *made {
	old, ok := m.entries.GetIfPresent(who{c.Subject, c.Tenant, c.MemberID})
	if !ok || !slices.Equal(old.roles, c.Roles) {
		return nil
	}
	return old
}

// put remembers an assertion. The texts are copied: they may be parts of larger ones,
// of the token's or the member's, which would be kept with them.
func (m *memory) put(c *Claims, text string, end time.Time) {
	roles := make([]string, len(c.Roles))
	for i, role := range c.Roles {
		roles[i] = strings.Clone(role)
	}
	about := who{strings.Clone(c.Subject), strings.Clone(c.Tenant), strings.Clone(c.MemberID)}
	m.entries.Set(about, &made{roles, end, text})
}

func weigh(w who, m *made) uint32 {
	n := entryOverhead + len(w.subject) + len(w.tenant) + len(w.memberID) + len(m.text)
	for _, role := range m.roles {
		n += len(role)
	}
	return uint32(min(n, math.MaxUint32))
}

// injectedClock is a test's clock. It does not tick.
type injectedClock func() time.Time

// NowNano implements otter's Clock.
func (c injectedClock) NowNano() int64 { return c().UnixNano() }

// Tick implements otter's Clock.
func (c injectedClock) Tick(time.Duration) <-chan time.Time { return nil }

package store

import (
	"cmp"
	"math"
	"strconv"
	"strings"
)

// position is the id of an event in the flush log: of Redis' streams, where it
// is written "<milliseconds>-<number>". Positions of one stream only grow.
type position struct{ millis, number uint64 }

// compare orders positions as the stream does.
func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(p.millis, q.millis), cmp.Compare(p.number, q.number))
}

// A packed position fits into an atomic word, at the cost of rounding ids that
// no Redis makes by itself: 44 bits of milliseconds last until the year 2527,
// and 20 bits are a million events in one millisecond.
const (
	numberBits = 20
	maxNumber  = 1<<numberBits - 1
	maxMillis  = 1<<44 - 2
)

// parsePosition reads an id as Redis writes it, and no other spelling of it.
func parsePosition(s string) (position, bool) {
	millis, number, ok := strings.Cut(s, "-")
	if !ok {
		return position{}, false
	}
	var p position
	var first, second error
	p.millis, first = strconv.ParseUint(millis, 10, 64)
	p.number, second = strconv.ParseUint(number, 10, 64)
	return p, first == nil && second == nil && isPlainNumber(millis) && isPlainNumber(number)
}

// isPlainNumber tells whether digits are all that are needed: no zeros before.
func isPlainNumber(digits string) bool { return digits == "0" || !strings.HasPrefix(digits, "0") }

// String returns the id as Redis writes it.
func (p position) String() string {
	return strconv.FormatUint(p.millis, 10) + "-" + strconv.FormatUint(p.number, 10)
}

// packedDown packs the position of an entry. Where that is not exact the entry
// is older than it was, so that fences refuse it sooner.
func (p position) packedDown() uint64 {
	if p.millis > maxMillis {
		return math.MaxUint64 - 1
	}
	return p.millis<<numberBits | min(p.number, maxNumber)
}

// packedUp packs the position of a flush. Where that is not exact the flush is
// later than it was, so that it refuses more.
func (p position) packedUp() uint64 {
	switch {
	case p.millis > maxMillis:
		return math.MaxUint64
	case p.number > maxNumber:
		return (p.millis + 1) << numberBits
	default:
		return p.millis<<numberBits | p.number
	}
}

package store

import "time"

// moment is a time by two clocks: the one of the day, which nodes share and which may
// be set, and one of this process that only goes on. Of a time.Time it has half the
// size, and no pointer.
type moment struct {
	wall   int64 // nanoseconds since 1970
	steady int64 // nanoseconds since this process began; 0: not known
}

// processBegan has a reading of the steady clock.
var processBegan = time.Now()

func momentOf(t time.Time) moment {
	return moment{wall: t.UnixNano(), steady: int64(t.Sub(processBegan))}
}

// age is how long ago that was at now, by the clock that says longer: the one of the
// day may have been set back since, and the other stands still while the machine sleeps.
func (m moment) age(now time.Time) time.Duration {
	age := now.UnixNano() - m.wall
	if m.steady != 0 {
		age = max(age, int64(now.Sub(processBegan))-m.steady)
	}
	return time.Duration(age)
}

// after tells whether that was later than another moment was.
func (m moment) after(other moment) bool {
	if m.steady != 0 && other.steady != 0 {
		return m.steady > other.steady
	}
	return m.wall > other.wall
}

func (m moment) time() time.Time { return time.Unix(0, m.wall) }

package store

import (
	"testing"
	"time"
)

func TestAgeIsByTheClockThatSaysLonger(t *testing.T) {
	now := processBegan.Add(2 * time.Hour)
	of := func(byWall, bySteady time.Duration) moment {
		m := momentOf(now)
		return moment{m.wall - int64(byWall), m.steady - int64(bySteady)}
	}
	tests := map[string]struct {
		loaded moment
		want   time.Duration
	}{
		"nothing happened since":                  {of(10*time.Second, 10*time.Second), 10 * time.Second},
		"the clock was set back since":            {of(10*time.Second-time.Hour, 10*time.Second), 10 * time.Second},
		"the clock was set back by half its age":  {of(5*time.Second, 10*time.Second), 10 * time.Second},
		"the machine slept since":                 {of(time.Hour, 10*time.Second), time.Hour},
		"another process's, by the wall clock":    {moment{wall: momentOf(now).wall - int64(time.Minute)}, time.Minute},
		"another process's, from the future":      {moment{wall: momentOf(now).wall + int64(time.Minute)}, -time.Minute},
		"another process's, from the year 9999":   {moment{wall: nanoseconds(maxUnixMilli)}, -200 * 365 * 24 * time.Hour},
		"nobody's, which is older than all there": {moment{}, 50 * 365 * 24 * time.Hour},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := test.loaded.age(now)
			if far := 40 * 365 * 24 * time.Hour; test.want > far && got > test.want || test.want < -far && got < test.want {
				return
			}
			if got != test.want {
				t.Errorf("its age is %v, want %v", got, test.want)
			}
		})
	}
}

func TestTheLaterMomentIsToldDespiteAClockThatWasSet(t *testing.T) {
	now := momentOf(processBegan.Add(time.Hour))
	later := moment{now.wall - int64(time.Minute), now.steady + int64(time.Second)} // set back in between
	if !later.after(now) || now.after(later) || now.after(now) {
		t.Error("the order is by the clock that was set")
	}
	if others := (moment{wall: now.wall + 1}); !others.after(now) || now.after(others) {
		t.Error("the order of what another process loaded is not by the wall clock")
	}
}

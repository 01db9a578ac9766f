package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/kctest"
)

// scale is how much of everything there is.
type scale struct {
	Rounds      int           `json:"rounds"`
	Duration    time.Duration `json:"duration_ns"` // of each measurement
	Warmup      time.Duration `json:"warmup_ns"`
	LeadIn      time.Duration `json:"lead_in_ns"` // before each measurement but the first
	Connections int           `json:"connections"`
	Profile     time.Duration `json:"profile_ns"` // how long one is

	Users     int `json:"users"`      // of the spread case
	Tenants   int `json:"tenants"`    // of each of them
	FewUsers  int `json:"few_users"`  // of the size case
	Many      int `json:"many"`       // tenants of each user in the large memory of the size case
	Tokens    int `json:"tokens"`     // seen for the first time
	RedisUser int `json:"redis_user"` // users with members in Redis, in as many tenants as of the spread case
	Rows      int `json:"rows"`       // members in the database
	Starts    int `json:"starts"`
}

// fullScale is what the bars are about.
func fullScale() scale {
	return scale{
		Rounds: 15, Duration: 2 * time.Second, Warmup: 2 * time.Second, LeadIn: 200 * time.Millisecond, Connections: 32, Profile: 10 * time.Second,
		Users: 10_000, Tenants: 50, FewUsers: 1_000, Many: 1_000, Tokens: 20_000, RedisUser: 1_000, Rows: 500, Starts: 7,
	}
}

// quickScale tries everything and shows nothing.
func quickScale() scale {
	return scale{
		Rounds: 2, Duration: 100 * time.Millisecond, Warmup: 20 * time.Millisecond, LeadIn: 5 * time.Millisecond, Connections: 8, Profile: time.Second,
		Users: 20, Tenants: 5, FewUsers: 20, Many: 10, Tokens: 60, RedisUser: 20, Rows: 10, Starts: 1,
	}
}

// bench is one run of everything.
type bench struct {
	scale
	owner *owner
	cores cores
	only  *regexp.Regexp // of cases, by their names
	log   io.Writer
	dir   string // for files
	caddy string // path of the measured binary

	profiles string // directory for processor profiles, empty for none

	crowd    *crowd
	upstream upstreamServer
	report   *report
}

// benchCase measures for one or more bars.
type benchCase struct {
	name string
	run  func(b *bench, o *owner) error
}

func cases() []benchCase {
	return []benchCase{
		{"respond", (*bench).respondCase},
		{"proxy", (*bench).proxyCase},
		{"latency", (*bench).latencyCase},
		{"spread", (*bench).spreadCase},
		{"size", (*bench).sizeCase},
		{"first", (*bench).firstCase},
		{"redis", (*bench).redisCase},
		{"sql", (*bench).sqlCase},
		{"allocations", (*bench).allocationCase},
		{"scaling", (*bench).scalingCase},
		{"burst", (*bench).burstCase},
		{"start", (*bench).startCase},
		{"binary", (*bench).binaryCase},
	}
}

// run does everything that was asked for. With an error, what it has measured stands in
// the report all the same.
func (b *bench) run(ctx context.Context) error {
	return owned(ctx, func(o *owner) error {
		b.owner = o
		b.say("building Caddy with the module and what it is measured against")
		b.caddy = filepath.Join(b.dir, "caddy")
		err := b.cores.everywhere(ctx, func() error { return build(ctx, b.caddy, "./test/bench/caddy") })
		if err != nil {
			return err
		}
		keycloak, err := kctest.NewServer()
		if err != nil {
			return err
		}
		o.Cleanup(keycloak.Stop)
		b.crowd = newCrowd(keycloak.Realm("bench"))
		if err := b.startUpstream(); err != nil {
			return err
		}
		var failed []error
		for _, c := range cases() {
			if b.only != nil && !b.only.MatchString(c.name) {
				continue
			}
			begun := time.Now()
			// Each case ends what it has started. That one fails takes nothing from the others.
			if err := owned(ctx, func(o *owner) error { return c.run(b, o) }); err != nil {
				b.say("%s: FAILED: %v", c.name, err)
				failed = append(failed, fmt.Errorf("case %s: %w", c.name, err))
			}
			if ctx.Err() != nil {
				break
			}
			b.say("%s: ended after %s", c.name, time.Since(begun).Round(100*time.Millisecond))
		}
		return errors.Join(failed...)
	})
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, format+"\n", args...)
}

// people makes what a case needs on all processors.
func (b *bench) people(f func() []person) ([]person, error) {
	var made []person
	err := b.cores.everywhere(b.owner.ctx, func() error {
		made = f()
		return nil
	})
	return made, err
}

// steady is a contender that runs for the duration as fast as it can.
func (b *bench) steady(o *owner, name string, s *site, w *visits) (*contender, error) {
	return b.against(o, name, s.Addr, s.pids, w)
}

func (b *bench) against(o *owner, name, addr string, pids []int, w *visits) (*contender, error) {
	l, err := newLoad(addr, b.Connections, w)
	if err != nil {
		return nil, err
	}
	o.Cleanup(l.close)
	return &contender{name: name, pids: pids, load: l, run: func(ctx context.Context, l *load) (measured, error) {
		return l.closed(ctx, b.Duration, 0)
	}}, nil
}

// dearRounds are the most rounds there are where each is dear: where it takes a new
// process, or where seconds are needed for a single number.
const dearRounds = 5

func (b *bench) fewRounds() int { return min(b.Rounds, dearRounds) }

// contest measures contenders against each other and notes how they did.
func (b *bench) contest(ctx context.Context, name string, rounds int, contenders ...*contender) ([]series, error) {
	results, err := compete(ctx, turns{rounds, b.Warmup, b.LeadIn}, contenders...)
	if err != nil {
		return nil, err
	}
	for _, s := range results {
		b.report.addSeries(name, s)
		b.say("  %-9s %-34s %9.0f requests/s", name, s.Name, s.rate())
	}
	return results, nil
}

// compared is the figure of a contest: by how much the first one's throughput is above
// the other's, in the median of the rounds. The median does not show what slows few
// rounds down, as the garbage collector does with a large heap; the ratio of all that
// was answered does.
func (b *bench) compared(key string, of, to series, note string) {
	all := ratio.format(mean(of.PerSecond)/mean(to.PerSecond)) + " over all rounds together"
	if note != "" {
		all += "; " + note
	}
	b.report.set(key, ratios(of.PerSecond, to.PerSecond), all)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/pprof/profile"
)

// profilePiece is how much of a profile is asked for at a time, which is well within the
// minute that a request to the admin API may take.
const profilePiece = 20 * time.Second

// profileOf writes a profile of a site under load to a file of that name, if profiles
// are wanted: after the measurements, as it costs something.
func (b *bench) profileOf(o *owner, name string, s *site, c *contender) error {
	if b.profiles == "" {
		return nil
	}
	taken, _, err := takeProfile(o.ctx, s, c.load, b.Profile)
	if err != nil {
		return err
	}
	return b.keepProfile(name, taken)
}

// hotPathLonger is how many times as long the profile of the hot path is, which the
// report tells of: few of its samples are in the module.
const hotPathLonger = 3

// hotPathOf is profileOf for the case whose profile the report tells of.
func (b *bench) hotPathOf(o *owner, name string, s *site, c *contender) error {
	taken, requests, err := takeProfile(o.ctx, s, c.load, hotPathLonger*b.Profile)
	if err != nil {
		return err
	}
	b.report.Hot, b.report.profile = hotPathOf(taken, requests), taken
	if b.profiles == "" {
		return nil
	}
	return b.keepProfile(name, taken)
}

func (b *bench) keepProfile(name string, p *profile.Profile) error {
	return writeProfile(filepath.Join(b.profiles, name+".prof"), p)
}

// takeProfile has a server write down where it is a hundred times a second, under load.
// It returns how many requests there were meanwhile.
func takeProfile(ctx context.Context, s *site, l *load, length time.Duration) (*profile.Profile, int, error) {
	var pieces []*profile.Profile
	var requests int
	for length > 0 {
		piece := min(length, profilePiece)
		length -= piece
		p, answered, err := profileUnderLoad(ctx, s, l, piece)
		if err != nil {
			return nil, 0, fmt.Errorf("profile: %w", err)
		}
		pieces, requests = append(pieces, p), requests+answered
	}
	whole, err := profile.Merge(pieces)
	return whole, requests, err
}

func profileUnderLoad(ctx context.Context, s *site, l *load, length time.Duration) (*profile.Profile, int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		text string
		err  error
	}
	taken := make(chan answer, 1)
	go func() {
		text, err := s.Admin(ctx, http.MethodGet, fmt.Sprintf("/debug/pprof/profile?seconds=%.0f", length.Seconds()), "", "")
		taken <- answer{text, err}
	}()
	result, err := l.closed(ctx, length, 0)
	if err != nil {
		cancel()
	}
	got := <-taken
	if err := errors.Join(err, got.err); err != nil {
		return nil, 0, err
	}
	p, err := profile.ParseData([]byte(got.text))
	if err != nil {
		return nil, 0, err
	}
	return p, result.Requests, checkProfile(p, length)
}

// checkProfile tells whether a profile is one, and as long as it was to be.
func checkProfile(p *profile.Profile, length time.Duration) error {
	switch {
	case processorTime(p) < 0:
		return errors.New("it has no processor time")
	case len(p.Sample) == 0:
		return errors.New("it is empty")
	case time.Duration(p.DurationNanos) < length*9/10:
		return fmt.Errorf("it ended after %s of %s", time.Duration(p.DurationNanos).Round(time.Millisecond), length)
	}
	return nil
}

// processorTime is which of a sample's values is its time, or -1.
func processorTime(p *profile.Profile) int {
	for i, kind := range p.SampleType {
		if kind.Type == "cpu" && strings.HasPrefix(kind.Unit, "nano") {
			return i
		}
	}
	return -1
}

// writeProfile writes a profile that `go tool pprof` reads, and the directory for it.
func writeProfile(path string, p *profile.Profile) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return p.Write(file)
}

package shared

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// resource counts how often it was destroyed.
type resource struct {
	name      string
	destroyed atomic.Int32
	err       error
}

func (r *resource) Destruct() error {
	r.destroyed.Add(1)
	return r.err
}

type options struct {
	URL      string
	Password string
}

func acquire(t *testing.T, p *Pool[*resource], o options) (*resource, func() error) {
	t.Helper()
	r, release, err := p.Acquire(o, func() (*resource, error) { return &resource{name: o.URL}, nil })
	if err != nil {
		t.Fatal(err)
	}
	return r, release
}

func mustRelease(t *testing.T, release func() error) {
	t.Helper()
	if err := release(); err != nil {
		t.Error(err)
	}
}

func TestEqualSettingsShareAValue(t *testing.T) {
	p := NewPool[*resource]()
	first, releaseFirst := acquire(t, p, options{"redis://h", "a"})
	second, releaseSecond := acquire(t, p, options{"redis://h", "a"})
	if first != second {
		t.Error("equal settings gave two values")
	}
	mustRelease(t, releaseFirst)
	if n := first.destroyed.Load(); n != 0 {
		t.Fatal("destroyed while it is in use")
	}
	mustRelease(t, releaseSecond)
	if n := first.destroyed.Load(); n != 1 {
		t.Errorf("destroyed %d times, want once", n)
	}
	third, releaseThird := acquire(t, p, options{"redis://h", "a"})
	if third == first {
		t.Error("a destroyed value was handed out again")
	}
	mustRelease(t, releaseThird)
}

// A rotated password must not go on with the connections of the old one.
func TestAnyOtherSettingMakesAnotherValue(t *testing.T) {
	p := NewPool[*resource]()
	first, releaseFirst := acquire(t, p, options{"redis://h", "old"})
	second, releaseSecond := acquire(t, p, options{"redis://h", "new"})
	third, releaseThird := acquire(t, p, options{"redis://hol", "d"})
	if first == second || first == third || second == third {
		t.Error("different settings share a value")
	}
	if n := len(p.All()); n != 3 {
		t.Errorf("All lists %d values, want 3", n)
	}
	for _, release := range []func() error{releaseFirst, releaseSecond, releaseThird} {
		mustRelease(t, release)
	}
	if n := len(p.All()); n != 0 {
		t.Errorf("All lists %d values, want none", n)
	}
}

// Caddy's own pool panics, or takes a share from another configuration, if a
// share is given back twice.
func TestReleasingTwiceCountsOnce(t *testing.T) {
	p := NewPool[*resource]()
	value, releaseFirst := acquire(t, p, options{URL: "a"})
	_, releaseSecond := acquire(t, p, options{URL: "a"})
	for range 3 {
		mustRelease(t, releaseFirst)
	}
	if n := value.destroyed.Load(); n != 0 {
		t.Error("the share of the other was given back")
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() { _ = releaseSecond() })
	}
	group.Wait()
	if n := value.destroyed.Load(); n != 1 {
		t.Errorf("destroyed %d times, want once", n)
	}
}

func TestReleaseTellsWhatDestructSays(t *testing.T) {
	p := NewPool[*resource]()
	broken := errors.New("broken")
	_, release, err := p.Acquire("a", func() (*resource, error) { return &resource{err: broken}, nil })
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := release(); !errors.Is(err, broken) {
			t.Errorf("got %v, want what Destruct returned", err)
		}
	}
}

func TestAFailedCreateLeavesNothingBehind(t *testing.T) {
	p := NewPool[*resource]()
	broken := errors.New("broken")
	value, release, err := p.Acquire("a", func() (*resource, error) { return &resource{}, broken })
	if !errors.Is(err, broken) || value != nil || release != nil {
		t.Fatalf("got %v, %v, want the error alone", value, err)
	}
	if n := len(p.All()); n != 0 {
		t.Errorf("%d values are left behind", n)
	}
	_, release, err = p.Acquire("a", func() (*resource, error) { return &resource{}, nil })
	if err != nil {
		t.Fatalf("a later attempt fails, too: %v", err)
	}
	mustRelease(t, release)
}

func TestSettingsThatCannotBeReadAreRefused(t *testing.T) {
	p := NewPool[*resource]()
	_, _, err := p.Acquire(make(chan int), func() (*resource, error) {
		t.Error("made nevertheless")
		return &resource{}, nil
	})
	if err == nil {
		t.Error("accepted")
	}
}

// Keys are logged by others, so they must show nothing of the settings, nor be
// a plain digest that a guess could be checked against.
func TestKeysShowNothingOfTheSettings(t *testing.T) {
	secret := options{"redis://h", "hunter2secret"}
	p := NewPool[*resource]()
	_, release := acquire(t, p, secret)
	defer mustRelease(t, release)
	p.values.Range(func(key, _ any) bool {
		if text, ok := key.(string); !ok || strings.Contains(text, "hunter2secret") || strings.Contains(text, "redis") || len(text) != 64 {
			t.Errorf("the key is %v", key)
		}
		return true
	})
	a, errA := p.key(secret)
	b, errB := NewPool[*resource]().key(secret)
	if errA != nil || errB != nil || a == b {
		t.Errorf("two pools have the key %q (%v, %v) for the same settings", a, errA, errB)
	}
}

func TestManyAtOnceShareOneValue(t *testing.T) {
	p := NewPool[*resource]()
	_, releaseLast := acquire(t, p, options{URL: "a"})
	var made atomic.Int32
	var group sync.WaitGroup
	for range 32 {
		group.Go(func() {
			for range 50 {
				value, release, err := p.Acquire(options{URL: "a"}, func() (*resource, error) {
					made.Add(1)
					return &resource{}, nil
				})
				if err != nil || value.destroyed.Load() != 0 {
					t.Errorf("got %v, %v", value, err)
					return
				}
				_ = release()
			}
		})
	}
	group.Wait()
	if n := made.Load(); n != 0 {
		t.Errorf("%d values were made while there was one", n)
	}
	mustRelease(t, releaseLast)
}

// Interface guards
var _ caddy.Destructor = (*resource)(nil)

package store

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"
)

// newTestShards returns the breakers of a cluster whose slots are shared by so
// many masters, none of which there is.
func newTestShards(t *testing.T, masters int, get func(context.Context, string) error) *shards {
	t.Helper()
	client := redis.NewClusterClient(&redis.ClusterOptions{
		ClusterSlots: func(ctx context.Context) ([]redis.ClusterSlot, error) {
			if err := ctx.Err(); err != nil { // as a server's answer would be
				return nil, err
			}
			var slots []redis.ClusterSlot
			for n := range masters {
				slots = append(slots, redis.ClusterSlot{
					Start: clusterSlots * n / masters, End: clusterSlots*(n+1)/masters - 1,
					Nodes: []redis.ClusterNode{{Addr: fmt.Sprintf("127.0.0.1:%d", n+1)}},
				})
			}
			return slots, nil
		},
	})
	clock := newTestClock()
	s := newShards(client, DefaultPrefix, get, func(probe func(context.Context) error) *breaker {
		return newBreaker(clock.now, probe)
	})
	t.Cleanup(func() { s.stop(); _ = client.Close() })
	if s.of("k") != s.common {
		t.Error("before the slots are known, some master is blamed")
	}
	if _, err := client.MasterForKey(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMastersHaveBreakersOfTheirOwn(t *testing.T) {
	var s *shards
	var probed string
	s = newTestShards(t, 3, func(_ context.Context, key string) error { probed = s.master(key); return nil })
	w := &witness{}
	masters := map[*breaker]string{}
	for i := range 100 {
		key := fmt.Sprint("key ", i)
		masters[s.of(key)] = s.master(key)
	}
	if len(masters) != 3 {
		t.Fatalf("%d breakers", len(masters))
	}
	down := 0
	for b, address := range masters {
		if err := b.probe(t.Context()); err != nil || probed != address {
			t.Errorf("the probe of %s asked %q: %v", address, probed, err)
		}
		for range tripAfter {
			b.failed(errors.New("no answer"))
		}
		want := Partial
		if down++; down == 3 {
			want = Down
		}
		if state, cause := s.state(); state != want || cause == nil {
			t.Errorf("with %d down the state is %v, %v", down, state, cause)
		}
		s.tell(w)
		s.tell(w)
	}
	for b := range masters {
		b.close()
	}
	s.tell(w)
	w.expect(t, "told", &w.states, "partial", "down", "up")
}

func TestBreakersOfMastersAreBounded(t *testing.T) {
	s := newTestShards(t, maxShards+500, func(context.Context, string) error { return errors.New("no answer") })
	sick := s.of("sick")
	for range tripAfter {
		sick.failed(errors.New("no answer"))
	}
	for i := range 20 * maxShards {
		s.of(fmt.Sprint("key ", i))
		if n := len(s.masters); n > maxShards {
			t.Fatalf("%d breakers", n)
		}
	}
	if s.of("sick") != sick || sick.allowsReads() {
		t.Error("a master that is down is asked again, because there are many")
	}
	if err := s.probe(t.Context(), "127.0.0.1:65000"); err != nil {
		t.Errorf("who has no slots any more is left alone for ever: %v", err)
	}
}

// Who is replaced while it takes no writes gets none that would tell of better times.
func TestAReadOnlyMasterWithoutSlotsIsForgotten(t *testing.T) {
	s := newTestShards(t, 3, func(context.Context, string) error { return nil })
	gone := s.make(func(context.Context) error { return nil })
	gone.writeFailed(errTest, true)
	s.masters["127.0.0.1:99"] = gone
	s.of("k")
	if state, _ := s.state(); state != Up {
		t.Errorf("the cluster is %s", state)
	}
	s.of("k").writeFailed(errTest, true)
	if state, _ := s.state(); state != ReadOnly {
		t.Errorf("with a master of its own that takes no writes it is %s", state)
	}
}

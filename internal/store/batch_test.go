package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

// pipelines counts how values are read: one by one, and in batches of which size.
type pipelines struct {
	mu      sync.Mutex
	alone   int
	batches []int
}

func (p *pipelines) DialHook(next redis.DialHook) redis.DialHook { return next }

func (p *pipelines) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "getrange" { // and not for the connection
			p.mu.Lock()
			p.alone++
			p.mu.Unlock()
		}
		return next(ctx, cmd)
	}
}

func (p *pipelines) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		p.mu.Lock()
		p.batches = append(p.batches, len(cmds))
		p.mu.Unlock()
		return next(ctx, cmds)
	}
}

// newBatches has batches at a server whose log nobody follows: it would get in the
// way of what the server is told to do.
func newBatches(t *testing.T, url string) (*batches, *pipelines) {
	t.Helper()
	s, err := New(Config{URL: url, Timeout: time.Second, Lazy: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Destruct() })
	b, seen := s.redis.values.(*batches), &pipelines{}
	b.alone.client.AddHook(seen)
	return b, seen
}

// together reads keys in one batch, the first of which leads it, and returns what
// came of each.
func together(t *testing.T, b *batches, keys ...string) []*redis.StringCmd {
	t.Helper()
	read := make([]*redis.StringCmd, len(keys))
	led, _ := b.join(keys[0])
	var readers sync.WaitGroup
	for i, key := range keys[1:] {
		readers.Go(func() { read[i+1] = b.Get(t.Context(), key) })
		eventually(t, "joining", func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return len(led.keys) == i+2
		})
	}
	read[0] = b.lead(t.Context(), led)
	readers.Wait()
	return read
}

func TestLookUpsAtTheSameTimeShareARoundTrip(t *testing.T) {
	f := newFakeRedis(t)
	b, seen := newBatches(t, f.url())
	keys := make([]string, maxBatch)
	for i := range keys {
		if keys[i] = fmt.Sprint("k", i); i != 3 {
			f.set(keys[i], fmt.Sprint("value ", i))
		}
	}
	for i, cmd := range together(t, b, keys...) {
		switch value, err := cmd.Result(); {
		case i == 3:
			if !errors.Is(err, redis.Nil) {
				t.Errorf("a missing key is %q, error %v", value, err)
			}
		case err != nil || value != fmt.Sprint("value ", i):
			t.Errorf("%d: %q, error %v", i, value, err)
		}
	}
	if seen.alone != 0 || len(seen.batches) != 1 || seen.batches[0] != maxBatch {
		t.Errorf("batches of %d, and %d alone", seen.batches, seen.alone)
	}
}

func TestBatchesAreBounded(t *testing.T) {
	b := &batches{}
	first, _ := b.join("k")
	for range maxBatch - 1 {
		if joined, place := b.join("k"); joined != first || place == 0 {
			t.Fatal("another batch is begun while there is room")
		}
	}
	if joined, place := b.join("k"); joined == first || place != 0 {
		t.Errorf("one more than %d joined", maxBatch)
	}
}

func TestHugeValuesAreNotReadInBatches(t *testing.T) {
	f := newFakeRedis(t)
	b, _ := newBatches(t, f.url())
	f.set("huge", strings.Repeat("x", 10<<20))
	for _, cmd := range together(t, b, "huge", "huge") {
		if n := len(cmd.Val()); n != MaxEntrySize+1 {
			t.Errorf("%d bytes were read", n)
		}
	}
}

// What becomes of one look-up of a batch says nothing about the others.
func TestTroubleOfOneInABatch(t *testing.T) {
	t.Run("a leader without time", func(t *testing.T) {
		f := newFakeRedis(t)
		b, _ := newBatches(t, f.url())
		f.set("other", "value")
		led, _ := b.join("k")
		read := make(chan *redis.StringCmd)
		go func() { read <- b.Get(t.Context(), "other") }()
		eventually(t, "joining", func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return len(led.keys) == 2
		})
		late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		if err := b.lead(late, led).Err(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the leader: %v", err)
		}
		if cmd := <-read; cmd.Val() != "value" {
			t.Errorf("the other: %v", cmd)
		}
	})
	t.Run("one who waits no longer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := &batches{}
			b.join("k")
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := b.Get(ctx, "other").Err(); !errors.Is(err, errWaited) {
				t.Errorf("error %v", err)
			}
		})
	})
	t.Run("a lost connection", func(t *testing.T) {
		f := newFakeRedis(t)
		b, _ := newBatches(t, f.url())
		f.set("k", "value")
		var reads atomic.Int32
		f.on(func(args []string) {
			switch {
			case args[0] != "GETRANGE":
			case reads.Add(1) == 1:
				f.answer(drop, "GETRANGE")
			default:
				f.answer("", "GETRANGE")
			}
		})
		for i, cmd := range together(t, b, "k", "k", "k", "k") {
			if (cmd.Err() != nil) != (i == 0) {
				t.Errorf("%d: error %v", i, cmd.Err())
			}
		}
	})
	t.Run("a key of another type", func(t *testing.T) {
		f := newFakeRedis(t)
		b, seen := newBatches(t, f.url())
		f.set("other", "value")
		var reads atomic.Int32
		f.on(func(args []string) {
			switch {
			case args[0] != "GETRANGE":
			case reads.Add(1) == 1:
				f.answer("-WRONGTYPE it is a list", "GETRANGE")
			default:
				f.answer("", "GETRANGE")
			}
		})
		cmds := together(t, b, "list", "other", "missing")
		if err := cmds[0].Err(); !redis.HasErrorPrefix(err, "WRONGTYPE") {
			t.Errorf("the list: %v", err)
		}
		if cmds[1].Val() != "value" {
			t.Errorf("the other: %v", cmds[1])
		}
		if err := cmds[2].Err(); !errors.Is(err, redis.Nil) {
			t.Errorf("the missing one: %v", err)
		}
		if seen.alone != 1 {
			t.Errorf("%d were read alone", seen.alone)
		}
	})
}

// answering is a way to read of which always the same comes.
type answering struct{ err error }

func (a answering) Get(ctx context.Context, _ string) *redis.StringCmd {
	cmd := redis.NewStringCmd(ctx)
	cmd.SetErr(a.err)
	return cmd
}

// One connection that stalls is one failure, however many look-ups wait for it.
func TestWaitingForABatchIsNoFailureOfTheServer(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want State
	}{
		"in a batch of another": {errWaited, Up},
		"alone":                 {context.DeadlineExceeded, Down},
	} {
		t.Run(name, func(t *testing.T) {
			s := sharing(t, newFakeRedis(t), nil)
			s.redis.values = answering{tc.err}
			_, want := alice()
			for range 2 * tripAfter {
				if entry, _, _ := s.Begin("k", want, nil).Get(t.Context()); entry != nil {
					t.Fatal("found something")
				}
			}
			if got := s.redis.state(); got != tc.want {
				t.Errorf("the state is %s, want %s", got, tc.want)
			}
		})
	}
}

// go-redis leaves the commands of a pipeline without an error if the server refuses
// the connection, as if their keys were missing.
func TestRefusedConnectionIsNoMiss(t *testing.T) {
	f := newFakeRedis(t)
	f.answer("-WRONGPASS invalid", "AUTH")
	b, _ := newBatches(t, strings.Replace(f.url(), "//", "//:password@", 1))
	for i, cmd := range together(t, b, "k", "k", "k") {
		if err := cmd.Err(); err == nil || isMiss(err) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

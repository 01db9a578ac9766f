package store

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/redis/go-redis/v9"
)

// maxBatch is how many values are read in one round trip, at most: 2 MiB of them,
// should all be as large as may be.
const maxBatch = 32

// batches reads values for look-ups that come at the same time in one round trip.
// Most of what it costs to read a value in Redis, there and here, are system calls and
// the switching between processes, which a batch needs but once.
//
// Nobody waits for a batch to fill. Who begins one lets those go first who could run
// already, and they join it if they come as far as Redis. A node with nothing else to
// do makes batches of one.
type batches struct {
	alone boundedClient

	mu      sync.Mutex
	filling *batch
}

// batch is what is read in one round trip.
type batch struct {
	keys    []string
	read    []*redis.StringCmd // one for each key
	err     error              // of any of them, or of none
	arrived chan struct{}      // closed after that; nil while there is one key
}

// Get is that of [boundedClient].
func (b *batches) Get(ctx context.Context, key string) *redis.StringCmd {
	joined, place := b.join(key)
	if place == 0 {
		return b.lead(ctx, joined)
	}
	select {
	case <-joined.arrived:
	case <-ctx.Done():
		cmd := redis.NewStringCmd(ctx)
		cmd.SetErr(errWaited)
		return cmd
	}
	if !joined.answered(place) {
		// One lost connection must not look like many, nor one leader's lack of time
		// like everybody's. Who has time left tries alone, and fails alone.
		cmd := b.alone.Get(ctx, key)
		if ctx.Err() != nil {
			cmd.SetErr(errWaited)
		}
		return cmd
	}
	return missIfEmpty(joined.read[place])
}

// errWaited says that a look-up's time went by while it waited for a round trip that
// another one made. It says nothing that the other one's failure does not say.
var errWaited = fmt.Errorf("waiting for a batch: %w", context.DeadlineExceeded)

// join takes a place in a batch. Who has the first one leads it.
func (b *batches) join(key string) (joined *batch, place int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.filling == nil || len(b.filling.keys) == maxBatch {
		b.filling = &batch{}
	}
	joined = b.filling
	joined.keys = append(joined.keys, key)
	place = len(joined.keys) - 1
	if place == 1 {
		joined.arrived = make(chan struct{})
	}
	return joined, place
}

// lead reads a batch, and returns what is in its first place.
func (b *batches) lead(ctx context.Context, own *batch) *redis.StringCmd {
	runtime.Gosched()
	b.mu.Lock()
	if b.filling == own {
		b.filling = nil // from here on nobody joins
	}
	b.mu.Unlock()
	if len(own.keys) == 1 {
		return b.alone.Get(ctx, own.keys[0])
	}
	b.readAll(ctx, own)
	if own.answered(0) || own.read[0].Err() != nil {
		return missIfEmpty(own.read[0])
	}
	return b.alone.Get(ctx, own.keys[0])
}

// readAll makes the round trip.
func (b *batches) readAll(ctx context.Context, own *batch) {
	defer close(own.arrived)
	read := make([]*redis.StringCmd, len(own.keys))
	pipe := b.alone.client.Pipeline()
	for i, key := range own.keys {
		read[i] = pipe.GetRange(ctx, key, 0, MaxEntrySize)
	}
	_, own.err = pipe.Exec(ctx)
	own.read = read
}

// answered tells whether the server has said something about a key. Without a
// connection go-redis may leave a command without an error, and it looks as if the
// key were missing.
func (b *batch) answered(place int) bool {
	if b.read == nil {
		return false // go-redis panicked
	}
	cmd := b.read[place]
	if cmd.Err() != nil {
		return refused(cmd.Err())
	}
	return b.err == nil || cmd.Val() != ""
}

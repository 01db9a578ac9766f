package store

import (
	"context"
	"errors"
	"slices"
	"time"

	redisstore "github.com/eko/gocache/store/redis/v4"
	"github.com/redis/go-redis/v9"
)

// worldRedis is what the store sees of Redis' values. Other methods are not
// called.
type worldRedis struct {
	redisstore.RedisClientInterface
	*world
}

func (r worldRedis) Get(ctx context.Context, key string) *redis.StringCmd {
	r.pause() // on its way there
	cmd := redis.NewStringCmd(ctx)
	if value, ok := r.values[key]; ok && r.clock.now().Before(value.ends) {
		cmd.SetVal(value.text)
	} else {
		cmd.SetErr(redis.Nil)
	}
	r.pause() // on its way back
	return cmd
}

func (r worldRedis) Set(ctx context.Context, key string, value any, life time.Duration) *redis.StatusCmd {
	r.pause()
	cmd := redis.NewStatusCmd(ctx)
	if r.chance(3) {
		cmd.SetErr(refusal("OOM"))
	} else {
		r.values[key] = worldValue{string(value.([]byte)), r.clock.now().Add(life)}
	}
	r.pause()
	return cmd
}

func (r worldRedis) Del(ctx context.Context, keys ...string) *redis.IntCmd {
	r.pause()
	cmd := redis.NewIntCmd(ctx)
	if r.chance(3) {
		cmd.SetErr(refusal("NOPERM"))
	} else {
		delete(r.values, keys[0])
	}
	r.pause()
	return cmd
}

// worldLog is the stream.
type worldLog struct{ *world }

func (l worldLog) append(_ context.Context, fields []string) (position, error) {
	r := record{fields: fieldsOf(fields)}
	version := l.versionOf(r.fields[fieldRef])
	l.pause()
	if l.chance(5) {
		return position{}, refusal("LOADING")
	}
	l.last += 1 + uint64(l.random.IntN(3)) // time passes between events
	at := position{millis: l.last}
	r.at = at
	l.records = append(l.records, r)
	if r.fields[fieldKind] == kindFlush {
		l.flushes = append(l.flushes, &worldFlush{at: at, version: version})
	}
	lost := l.chance(5) // the answer
	l.pause()
	if lost {
		return position{}, errors.New("connection lost")
	}
	return at, nil
}

// versionOf returns the version that the flush with this ref is about.
func (w *world) versionOf(ref string) int {
	for _, node := range w.nodes {
		if item := node.log.sent.items[ref]; item != nil {
			if w.running.version > 0 {
				w.sent[item] = w.running.version
			}
			return w.sent[item]
		}
	}
	return 0
}

func (l worldLog) read(_ context.Context, from position, count int) ([]record, error) {
	l.pause()
	if l.chance(3) {
		return nil, refusal("LOADING")
	}
	i, _ := slices.BinarySearchFunc(l.records, from, func(r record, at position) int { return r.at.compare(at) })
	page := slices.Clone(l.records[i:min(len(l.records), i+count)])
	l.pause()
	return page, nil
}

func (l worldLog) wait(context.Context, position) error { return nil }
func (l worldLog) drop(context.Context) error           { return nil }
func (l worldLog) close() error                         { return nil }

// failover loses the last events. The new primary has a clock of its own: it
// may give new events ids below those of the lost ones, the same, or later.
func (w *world) failover() {
	w.noteReaders()
	lost := min(w.random.IntN(6), len(w.records))
	w.records = w.records[:len(w.records)-lost]
	kept := uint64(0)
	if len(w.records) > 0 {
		kept = w.records[len(w.records)-1].at.millis
	}
	if w.last -= kept; w.chance(50) { // a clock that lags so far that the stream counts on
		w.last = 0
	}
	w.last = kept + w.random.Uint64N(w.last+2)
	w.flushes = slices.DeleteFunc(w.flushes, func(f *worldFlush) bool {
		if f.at.millis <= kept {
			return false
		}
		for n, read := range f.read { // those who knew it still do
			if read {
				w.nodes[n].least = max(w.nodes[n].least, f.version)
			}
		}
		return true
	})
	w.note("failover: %d events lost, the next is later than %d", lost, w.last)
	if w.chance(20) {
		clear(w.values)
	}
}

// trim shortens the log, as a stream with a length does, to the generation
// before the present one.
func (w *world) trim() {
	generations := 0
	for i, r := range slices.Backward(w.records) {
		if r.fields[fieldKind] == kindGeneration {
			if generations++; generations == 2 {
				w.records = slices.Clone(w.records[i:])
				return
			}
		}
	}
}

// noteReaders notes which flushes have been read by whom.
func (w *world) noteReaders() {
	for n, node := range w.nodes {
		h := node.log.head.Load()
		for _, f := range w.flushes {
			// A position says nothing of a log that was lost, unless its last event is
			// the one that the node knows.
			if h != nil && h.last.at.compare(f.at) >= 0 && w.knows(node, h) {
				f.read[n] = true
			}
		}
	}
}

func (w *world) knows(node *worldNode, h *head) bool {
	i, ok := slices.BinarySearchFunc(w.records, h.last.at, func(r record, at position) int { return r.at.compare(at) })
	return ok && w.records[i].same(node.log.tail.last)
}

// least is the oldest version that a node may serve to whoever asks now.
func (w *world) least(n int) int {
	w.noteReaders()
	least := w.nodes[n].least
	for _, f := range w.flushes {
		if f.read[n] {
			least = max(least, f.version)
		}
	}
	return least
}

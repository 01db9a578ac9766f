package store

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/redis/go-redis/v9"
)

// record is an event as it stands in the stream.
type record struct {
	at     position
	fields map[string]string
}

// same tells whether two records are one. Positions alone would do, were there
// no servers that make them from clocks of their own.
func (r record) same(other record) bool {
	return r.at == other.at && maps.Equal(r.fields, other.fields)
}

// logClient is what the flush log asks of Redis.
type logClient interface {
	// append adds an event at the end. An error does not say that it was not
	// added.
	append(ctx context.Context, fields []string) (position, error)

	// read returns up to count records from a position on, that one included;
	// from the beginning with the zero position.
	read(ctx context.Context, from position, count int) ([]record, error)

	// wait returns when there may be a record after a position, or after a
	// while. It proves nothing.
	wait(ctx context.Context, after position) error

	// drop deletes the stream, or what stands in its place.
	drop(ctx context.Context) error

	// close fails what is under way, and everything after.
	close() error
}

const (
	// waitFor is how long the server holds a reader to whom it has nothing to
	// say. The log is read again after that, so it is read each second.
	waitFor = 500 * time.Millisecond

	// waitSlack is how much later its answer may come.
	waitSlack = 300 * time.Millisecond
)

var errNoStream = errors.New("the answer is not from a stream")

// redisLog is the log in a stream of a Redis server.
type redisLog struct {
	client redis.UniversalClient // of its own: budgets differ from those of look-ups
	key    string
	length int64
	keep   func() int64 // how long the log is to be now, if longer; nil: it is not
}

func (r *redisLog) append(ctx context.Context, fields []string) (position, error) {
	length := r.length
	if r.keep != nil {
		length = max(length, r.keep())
	}
	id, err := r.client.XAdd(ctx, &redis.XAddArgs{Stream: r.key, MaxLen: length, Approx: true, Values: fields}).Result()
	if err != nil {
		return position{}, err
	}
	at, ok := parsePosition(id)
	if !ok {
		return position{}, errNoStream
	}
	return at, nil
}

func (r *redisLog) read(ctx context.Context, from position, count int) ([]record, error) {
	messages, err := r.client.XRangeN(ctx, r.key, from.String(), "+", int64(count)).Result()
	if err != nil {
		return nil, err
	}
	records := make([]record, len(messages))
	for i, message := range messages {
		at, ok := parsePosition(message.ID)
		if !ok {
			return nil, errNoStream
		}
		fields := make(map[string]string, len(message.Values))
		for name, value := range message.Values {
			fields[name], _ = value.(string)
		}
		records[i] = record{at, fields}
	}
	return records, nil
}

func (r *redisLog) wait(ctx context.Context, after position) error {
	ctx, cancel := context.WithTimeout(ctx, waitFor+waitSlack)
	defer cancel()
	err := r.client.XRead(ctx, &redis.XReadArgs{Streams: []string{r.key, after.String()}, Count: 1, Block: waitFor}).Err()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}

func (r *redisLog) drop(ctx context.Context) error { return r.client.Unlink(ctx, r.key).Err() }

func (r *redisLog) close() error { return r.client.Close() }

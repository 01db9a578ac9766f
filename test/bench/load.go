package main

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// work makes the requests of a run.
type work interface {
	// next appends the request number seq to out, and says what the answer to it
	// must be.
	next(seq int, out []byte) ([]byte, want)
}

// load is a set of keep-alive connections to one server. It runs on one goroutine and
// keeps its processor busy all the time, so that what it measures is not its own
// waking up. Give it a processor of its own.
type load struct {
	conns []*connection
	work  work
	seq   int // of the next request, over all runs
	begun time.Time

	// patience is how long a single response may take before the run fails.
	patience time.Duration
}

const defaultPatience = 20 * time.Second

func newLoad(addr string, connections int, w work) (*load, error) {
	l := &load{work: w, patience: defaultPatience}
	for range connections {
		c, err := dial(addr)
		if err != nil {
			l.close()
			return nil, err
		}
		l.conns = append(l.conns, c)
	}
	return l, nil
}

func (l *load) close() {
	for _, c := range l.conns {
		_ = c.conn.Close()
	}
}

// measured is what a run came to.
type measured struct {
	Requests  int
	Elapsed   time.Duration
	Latencies latencies
}

// perSecond is the throughput.
func (m measured) perSecond() float64 { return float64(m.Requests) / m.Elapsed.Seconds() }

// closed sends the next request on each connection as soon as the one before is
// answered, for a time, or until there were most responses if most is not 0. It
// measures what the server can do, until the last response has come. Its latencies are those of a queue that the
// generator itself keeps full: they say nothing about users.
func (l *load) closed(ctx context.Context, duration time.Duration, most int) (measured, error) {
	l.begun = time.Now()
	var result measured
	sent := len(l.conns)
	if most > 0 {
		sent = min(sent, most)
	}
	for _, c := range l.conns[:sent] {
		if err := l.send(c, 0); err != nil {
			return result, err
		}
	}
	for {
		progress, underWay := false, false
		for _, c := range l.conns {
			if !c.busy {
				continue
			}
			underWay = true
			done, err := c.poll()
			if err != nil {
				return result, err
			}
			if !done {
				continue
			}
			progress = true
			now := time.Since(l.begun)
			result.Requests++
			result.Elapsed = now
			result.Latencies.add(now - c.due)
			if most > 0 && sent >= most || duration > 0 && now > duration {
				continue
			}
			sent++
			if err := l.send(c, now); err != nil {
				return result, err
			}
		}
		if !underWay {
			break
		}
		if err := l.pause(ctx, progress); err != nil {
			return result, err
		}
	}
	return result, nil
}

// open sends requests at a constant rate, whatever the server does, and counts each
// one's latency from the moment it was to be sent. A request that has to wait because
// all connections are busy has waited since then: were it counted from its sending, a
// server that stands still would hide all who came meanwhile but one for each
// connection. What is not answered when as much time again has passed counts with the
// time it has waited until then.
func (l *load) open(ctx context.Context, duration time.Duration, rate float64) (measured, error) {
	total := int(rate * duration.Seconds())
	interval := float64(time.Second) / rate
	due := func(k int) time.Duration { return time.Duration(float64(k) * interval) }
	result := measured{Latencies: make(latencies, 0, total)}
	giveUp := 2*duration + time.Second
	l.begun = time.Now()
	next, answered, turn := 0, 0, 0
	for answered < total {
		now := time.Since(l.begun)
		progress := false
		for ; next < total && due(next) <= now; next++ {
			c := l.idle(&turn)
			if c == nil {
				break
			}
			if err := l.send(c, due(next)); err != nil {
				return result, err
			}
			progress = true
		}
		for _, c := range l.conns {
			if !c.busy {
				continue
			}
			done, err := c.poll()
			if err != nil {
				return result, err
			}
			if done {
				answered++
				result.Latencies.add(time.Since(l.begun) - c.due)
				progress = true
			}
		}
		if now > giveUp {
			l.addUnanswered(&result, next, total, due)
			result.Requests, result.Elapsed = answered, now
			return result, nil
		}
		if err := l.pause(ctx, progress); err != nil {
			return result, err
		}
	}
	result.Requests, result.Elapsed = answered, time.Since(l.begun)
	if answered == 0 {
		return result, fmt.Errorf("a rate of %g for %s is not one request", rate, duration)
	}
	return result, nil
}

// addUnanswered adds how long those have waited that nobody answers any more. Their
// connections are of no further use.
func (l *load) addUnanswered(result *measured, next, total int, due func(int) time.Duration) {
	now := time.Since(l.begun)
	for _, c := range l.conns {
		if c.busy {
			result.Latencies.add(now - c.due)
		}
	}
	for k := next; k < total; k++ {
		result.Latencies.add(now - due(k))
	}
}

// idle returns a connection without a request under way, in turn, or nil.
func (l *load) idle(turn *int) *connection {
	for range l.conns {
		c := l.conns[*turn%len(l.conns)]
		*turn++
		if !c.busy {
			return c
		}
	}
	return nil
}

func (l *load) send(c *connection, due time.Duration) error {
	c.out, c.want = l.work.next(l.seq, c.out[:0])
	l.seq++
	c.due = due
	return c.send()
}

// pause is called after each look at the connections.
func (l *load) pause(ctx context.Context, progress bool) error {
	if err := ctx.Err(); err != nil || progress {
		return err
	}
	now := time.Since(l.begun)
	for _, c := range l.conns {
		if c.busy && now-c.due > l.patience {
			return fmt.Errorf("no response in %s", l.patience)
		}
	}
	runtime.Gosched() // with one processor, the others in this process get their turn
	return nil
}

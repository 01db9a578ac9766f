package store

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeRedis speaks enough RESP to stand in for a server, and misbehaves on
// demand. It knows strings and one
// stream, and no expiry.
type fakeRedis struct {
	listener net.Listener

	mu     sync.Mutex
	values map[string]string
	events []fakeEvent // of the only stream there is
	clock  int         // of its ids: milliseconds since testPosition
	closed bool
	log    []string          // the commands, their names in upper case
	reply  map[string]string // an answer to a command by name, instead of the right one
	hook   func(args []string)
	conns  map[net.Conn]bool
	dials  int
}

// fakeEvent is an event with its id.
type fakeEvent struct {
	at     position
	fields []string
}

// hang as a reply answers nothing, drop closes the connection.
const (
	hang = "(hang)"
	drop = "(drop)"
)

func newFakeRedis(t testing.TB) *fakeRedis {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeRedis{
		listener: listener, values: map[string]string{}, reply: map[string]string{}, conns: map[net.Conn]bool{},
	}
	f.events = []fakeEvent{{testMark.at, []string{"kind", "generation", "id", testGeneration}}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns[conn] = true
			f.dials++
			f.mu.Unlock()
			serving.Go(func() {
				defer func() { _ = conn.Close() }()
				f.serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		f.mu.Lock()
		f.closed = true
		for conn := range f.conns {
			_ = conn.Close()
		}
		f.mu.Unlock()
		serving.Wait()
	})
	return f
}

func (f *fakeRedis) url() string { return "redis://" + f.listener.Addr().String() }

// answer makes the server reply to a command with a line such as
// "-READONLY no", with hang or drop, or rightly again with "".
func (f *fakeRedis) answer(reply string, commands ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, command := range commands {
		if reply == "" {
			delete(f.reply, command)
		} else {
			f.reply[command] = reply
		}
	}
}

// on calls hook, without a lock, before each command is carried out.
func (f *fakeRedis) on(hook func(args []string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

func (f *fakeRedis) set(key, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.values[key] = value
}

func (f *fakeRedis) get(key string) (string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	value, ok := f.values[key]
	return value, ok
}

// count returns how often a command was received.
func (f *fakeRedis) count(command string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, name := range f.log {
		if name == command {
			n++
		}
	}
	return n
}

// dialed returns how many connections there have been.
func (f *fakeRedis) dialed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dials
}

func (f *fakeRedis) serve(conn net.Conn) {
	in := bufio.NewReader(conn)
	for {
		args, err := readCommand(in)
		if err != nil {
			return
		}
		f.mu.Lock()
		hook := f.hook
		f.mu.Unlock()
		if hook != nil {
			hook(args)
		}
		if args[0] == "XREAD" {
			f.awaitEvent(args)
		}
		switch reply := f.carryOut(args); reply {
		case drop:
			return
		case hang:
		default:
			if _, err := io.WriteString(conn, reply); err != nil {
				return
			}
		}
	}
}

func (f *fakeRedis) carryOut(args []string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, args[0])
	if reply, ok := f.reply[args[0]]; ok {
		if reply == hang || reply == drop {
			return reply
		}
		return reply + "\r\n"
	}
	switch args[0] {
	case "GETRANGE":
		end, _ := strconv.Atoi(args[3])
		value := f.values[args[1]]
		value = value[:min(len(value), end+1)]
		return fmt.Sprintf("$%d\r\n%s\r\n", len(value), value)
	case "SET":
		if _, ok := f.values[args[1]]; ok && slices.Contains(args, "NX") {
			return "$-1\r\n"
		}
		f.values[args[1]] = args[2]
		return "+OK\r\n"
	case "XADD": // key MAXLEN ~ n * fields
		f.clock++
		at := testMark.at
		at.millis += uint64(f.clock)
		f.events = append(f.events, fakeEvent{at, args[6:]})
		return fmt.Sprintf("$%d\r\n%s\r\n", len(at.String()), at)
	case "XRANGE": // key from + COUNT n
		from, _ := parsePosition(args[2])
		limit, _ := strconv.Atoi(args[5])
		return stream(f.after(from, true), limit)
	case "XREAD": // COUNT 1 BLOCK n STREAMS key after
		after, _ := parsePosition(args[7])
		if events := f.after(after, false); len(events) > 0 {
			return fmt.Sprintf("*1\r\n*2\r\n$%d\r\n%s\r\n", len(args[6]), args[6]) + stream(events, 1)
		}
		return "*-1\r\n"
	case "UNLINK":
		_, ok := f.values[args[1]]
		delete(f.values, args[1])
		if !ok {
			return ":0\r\n"
		}
		return ":1\r\n"
	default:
		return "-ERR unknown command\r\n" // HELLO among them: go-redis takes it for an old server
	}
}

// after returns the events after a position, or from it on.
func (f *fakeRedis) after(at position, inclusive bool) []fakeEvent {
	for i, event := range f.events {
		if n := event.at.compare(at); n > 0 || n == 0 && inclusive {
			return f.events[i:]
		}
	}
	return nil
}

func stream(events []fakeEvent, limit int) string {
	var b strings.Builder
	events = events[:min(len(events), limit)]
	fmt.Fprintf(&b, "*%d\r\n", len(events))
	for _, event := range events {
		id := event.at.String()
		fmt.Fprintf(&b, "*2\r\n$%d\r\n%s\r\n*%d\r\n", len(id), id, len(event.fields))
		for _, text := range event.fields {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(text), text)
		}
	}
	return b.String()
}

// awaitEvent blocks as XREAD does.
func (f *fakeRedis) awaitEvent(args []string) {
	after, _ := parsePosition(args[7])
	block, _ := strconv.Atoi(args[4])
	for end := time.Now().Add(time.Duration(block) * time.Millisecond); time.Now().Before(end); pass(time.Millisecond) {
		f.mu.Lock()
		_, special := f.reply["XREAD"]
		ready := len(f.after(after, false)) > 0 || f.closed || special
		f.mu.Unlock()
		if ready {
			return
		}
	}
}

// appended adds an event as another program would, and returns its position.
func (f *fakeRedis) appended(fields ...string) position {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clock++
	at := testMark.at
	at.millis += uint64(f.clock)
	f.events = append(f.events, fakeEvent{at, fields})
	return at
}

// change changes what stands in the stream.
func (f *fakeRedis) change(change func(events []fakeEvent) []fakeEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = change(slices.Clone(f.events))
}

// ofKind returns the events of a kind.
func (f *fakeRedis) ofKind(kind string) []fakeEvent {
	f.mu.Lock()
	defer f.mu.Unlock()
	var events []fakeEvent
	for _, event := range f.events {
		if i := slices.Index(event.fields, "kind"); i >= 0 && event.fields[i+1] == kind {
			events = append(events, event)
		}
	}
	return events
}

func readCommand(in *bufio.Reader) ([]string, error) {
	line := func(kind byte) (int, error) {
		text, err := in.ReadString('\n')
		if err != nil || text[0] != kind {
			return 0, io.ErrUnexpectedEOF
		}
		return strconv.Atoi(strings.TrimSpace(text[1:]))
	}
	n, err := line('*')
	if err != nil {
		return nil, err
	}
	args := make([]string, n)
	for i := range args {
		size, err := line('$')
		if err != nil {
			return nil, err
		}
		text := make([]byte, size+2)
		if _, err := io.ReadFull(in, text); err != nil {
			return nil, err
		}
		args[i] = string(text[:size])
	}
	args[0] = strings.ToUpper(args[0])
	return args, nil
}

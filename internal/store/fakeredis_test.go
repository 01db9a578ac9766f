package store

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// fakeRedis speaks enough RESP to stand in for a server, and misbehaves on
// demand. It knows strings only, and no expiry.
type fakeRedis struct {
	listener net.Listener

	mu     sync.Mutex
	values map[string]string
	log    []string          // the commands, their names in upper case
	reply  map[string]string // an answer to a command by name, instead of the right one
	hook   func(args []string)
	conns  map[net.Conn]bool
	dials  int
}

// hang as a reply answers nothing, drop closes the connection.
const (
	hang = "(hang)"
	drop = "(drop)"
)

func newFakeRedis(t *testing.T) *fakeRedis {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeRedis{
		listener: listener, values: map[string]string{}, reply: map[string]string{}, conns: map[net.Conn]bool{},
	}
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
		f.values[args[1]] = args[2]
		return "+OK\r\n"
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

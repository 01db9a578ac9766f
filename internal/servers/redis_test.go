package servers

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"testing"
	"time"
)

func TestRedisIsKilledAndRestartedAtItsAddress(t *testing.T) {
	s := Redis(t)
	s.Command(t, "SET", "key", "a value\r\nof two lines")
	if got, want := s.Command(t, "GET", "key"), "a value\r\nof two lines"; got != want {
		t.Errorf("GET gave %q, want %q", got, want)
	}
	first := s.PID()
	s.Kill()
	if _, err := net.Dial("tcp", s.Addr); err == nil {
		t.Error("a killed server takes connections")
	}
	s.Start(t)
	second := s.PID()
	s.Restart(t)
	if third := s.PID(); first == 0 || first == second || second == third || third == 0 {
		t.Errorf("process ids %d, %d, %d", first, second, third)
	}
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := redisExchange(conn, bufio.NewReader(conn), "GET", "key"); got != "" || err != nil {
		t.Errorf("after the restart GET gives %q, %v", got, err)
	}
}

func TestRedisKeepsWhatItIsToldToKeep(t *testing.T) {
	s := Redis(t, RedisConfig("appendonly yes", "appendfsync always"))
	s.Command(t, "SET", "key", "value")
	s.Kill()
	s.Start(t)
	if got := s.Command(t, "GET", "key"); got != "value" {
		t.Errorf("GET gave %q", got)
	}
}

func TestRedisDemandsItsPassword(t *testing.T) {
	const password = "p@ss word"
	s := Redis(t, RedisPassword(password))
	s.Command(t, "SET", "key", "value")
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := u.User.Password(); got != password || u.Host != s.Addr {
		t.Errorf("the URL is %s", u)
	}
	conn, err := net.Dial("unix", s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = redisExchange(conn, bufio.NewReader(conn), "GET", "key")
	if _, ok := errors.AsType[redisError](err); !ok {
		t.Errorf("without the password GET gave %v", err)
	}
}

func TestRedisFrozenDoesNotAnswer(t *testing.T) {
	s := Redis(t)
	s.Stop(t)
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := redisExchange(conn, bufio.NewReader(conn), "PING"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("PING: %v", err)
	}
	s.Cont(t)
	if got := s.Command(t, "PING"); got != "PONG" {
		t.Errorf("PING gave %q", got)
	}
}

// stop must not wait for a server that cannot act on its signal.
func TestRedisFrozenCanBeStopped(t *testing.T) {
	s := Redis(t)
	s.Stop(t)
	s.Restart(t)
	if err := redisReady(context.Background(), s.Socket); err != nil {
		t.Error(err)
	}
}

func TestRedisOfTwoTestsAreTwo(t *testing.T) {
	a, b := Redis(t), Redis(t)
	a.Command(t, "SET", "key", "value")
	if got := b.Command(t, "GET", "key"); a.Addr == b.Addr || got != "" {
		t.Errorf("%s and %s share a key: %q", a.Addr, b.Addr, got)
	}
	if got := a.Command(t, "MGET", "key", "none"); got != "value\n" {
		t.Errorf("MGET gave %q", got)
	}
}

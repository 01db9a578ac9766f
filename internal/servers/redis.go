package servers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const redisStartTimeout = 20 * time.Second

// RedisServer is a running redis-server of one test's own. It keeps nothing on
// disk, so that Restart and a Start after Kill begin empty, unless RedisConfig
// asks for `appendonly yes` or `save`.
type RedisServer struct {
	Addr    string // host:port
	TLSAddr string // the same over TLS, with RedisTLS
	Socket  string // path of the Unix socket

	password string
	proc     *process
}

// RedisOption changes how Redis starts a server.
type RedisOption func(*redisSettings)

type redisSettings struct {
	password string
	tls      bool
	lines    []string
}

// RedisConfig adds lines in the syntax of redis.conf, such as "maxmemory 2mb".
func RedisConfig(lines ...string) RedisOption {
	return func(s *redisSettings) { s.lines = append(s.lines, lines...) }
}

// RedisPassword makes the server demand a password of its default user.
func RedisPassword(password string) RedisOption {
	return func(s *redisSettings) { s.password = password }
}

// RedisTLS has the server listen on TLS as well, with a certificate and its key,
// and take only clients that show a certificate of the authorities. All are
// paths of PEM files.
func RedisTLS(certificate, key, authorities string) RedisOption {
	return func(s *redisSettings) {
		s.tls = true
		s.lines = append(s.lines, "tls-cert-file "+strconv.Quote(certificate), "tls-key-file "+strconv.Quote(key),
			"tls-ca-cert-file "+strconv.Quote(authorities), "tls-auth-clients yes")
	}
}

// Redis starts a Redis server that is stopped when the test ends. It listens
// on TCP and on a Unix socket.
func Redis(tb testing.TB, options ...RedisOption) *RedisServer {
	tb.Helper()
	server, err := startRedis(options)
	if err != nil {
		giveUp(tb, err)
	}
	tb.Cleanup(server.proc.close)
	return server
}

func startRedis(options []RedisOption) (*RedisServer, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("redis-server is %w: apt-get install redis-server, or brew install redis", errNotInstalled)
	}
	var settings redisSettings
	for _, option := range options {
		option(&settings)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := tempDir("redis", false)
	if err != nil {
		return nil, err
	}
	s := &RedisServer{Addr: hostPort(port), Socket: filepath.Join(dir, "redis.sock"), password: settings.password}
	lines := []string{
		"bind " + loopback, "port " + strconv.Itoa(port), "unixsocket " + strconv.Quote(s.Socket), "unixsocketperm 700",
		"dir " + strconv.Quote(dir), `save ""`, "appendonly no", "daemonize no",
	}
	if settings.tls {
		secure, err := freePort()
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		s.TLSAddr = hostPort(secure)
		lines = append(lines, "tls-port "+strconv.Itoa(secure))
	}
	if s.password != "" {
		lines = append(lines, "requirepass "+strconv.Quote(s.password))
	}
	config := filepath.Join(dir, "redis.conf")
	if err := os.WriteFile(config, []byte(strings.Join(append(lines, settings.lines...), "\n")+"\n"), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	// the socket lies in a directory of our own: nobody else can answer there
	s.proc = &process{
		name: "redis", dir: dir, path: path, args: []string{config}, quit: syscall.SIGKILL,
		ready: func(ctx context.Context) error { return redisReady(ctx, s.Socket) },
	}
	if err := s.proc.start(redisStartTimeout); err != nil {
		s.proc.close()
		if settings.tls && strings.Contains(err.Error(), "tls-port") { // it quotes the line it cannot read
			err = fmt.Errorf("a redis-server with TLS is %w: Debian's has it (apt-get install redis-server): %w", errNotInstalled, err)
		}
		return nil, err
	}
	return s, nil
}

// redisReady asks for a PING. A server that demands a password is ready too;
// one that is loading its data is not.
func redisReady(ctx context.Context, socket string) error {
	conn, err := redisDial(ctx, socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = redisExchange(conn, bufio.NewReader(conn), "PING")
	if reply, ok := errors.AsType[redisError](err); ok && strings.HasPrefix(string(reply), "NOAUTH") {
		return nil
	}
	return err
}

// redisDial opens a connection that lives for a few seconds at most.
func redisDial(ctx context.Context, socket string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// URL is the server's address in the form redis clients take, password included.
func (s *RedisServer) URL() string {
	u := url.URL{Scheme: "redis", Host: s.Addr, Path: "/0"}
	if s.password != "" {
		u.User = url.UserPassword("", s.password)
	}
	return u.String()
}

// PID is the server's process id, 0 while it does not run.
func (s *RedisServer) PID() int { return s.proc.pid() }

// Kill ends the server at once, as a crash would.
func (s *RedisServer) Kill() { s.proc.stop(syscall.SIGKILL) }

// Stop freezes the server: connections stay open and nothing answers.
func (s *RedisServer) Stop(tb testing.TB) { tb.Helper(); s.signal(tb, syscall.SIGSTOP) }

// Cont lets a frozen server go on.
func (s *RedisServer) Cont(tb testing.TB) { tb.Helper(); s.signal(tb, syscall.SIGCONT) }

func (s *RedisServer) signal(tb testing.TB, sig syscall.Signal) {
	tb.Helper()
	if err := s.proc.signal(sig); err != nil {
		tb.Fatalf("redis: %v: %v", sig, err)
	}
}

// Start starts a server that was killed, at the same address.
func (s *RedisServer) Start(tb testing.TB) {
	tb.Helper()
	if err := s.proc.start(redisStartTimeout); err != nil {
		tb.Fatal(err)
	}
}

// Restart ends the server in an orderly way and starts it again at the same
// address.
func (s *RedisServer) Restart(tb testing.TB) {
	tb.Helper()
	s.proc.stop(syscall.SIGTERM)
	s.Start(tb)
}

// Command sends one command, with the password where there is one, and returns
// its reply as text: lists one element a line, nil as "". An error reply fails
// the test.
func (s *RedisServer) Command(tb testing.TB, words ...string) string {
	tb.Helper()
	reply, err := s.command(tb.Context(), words)
	if err != nil {
		tb.Fatalf("redis: %s: %v", words[0], err)
	}
	return reply
}

func (s *RedisServer) command(ctx context.Context, words []string) (string, error) {
	conn, err := redisDial(ctx, s.Socket)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	if s.password != "" {
		if _, err := redisExchange(conn, r, "AUTH", s.password); err != nil {
			return "", err
		}
	}
	return redisExchange(conn, r, words...)
}

package servers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	postgresStartTimeout = 60 * time.Second
	postgresSuperuser    = "postgres"
)

// PostgresServer is a running PostgreSQL whose data survives Stop, Kill and
// Start, and is gone when the test ends.
type PostgresServer struct {
	// DSN is the URL of the database `postgres` for its superuser, password
	// included.
	DSN string

	bin  string // the directory of PostgreSQL's programs
	proc *process
}

// sharedPostgres is one server for all of a test binary's tests: they each get
// a database of their own, which takes a tenth of the time. Its janitor ends it
// with the test binary.
var sharedPostgres = sync.OnceValues(newPostgres)

// Postgres returns the URL of an empty database on a running PostgreSQL, for a
// superuser. The database is dropped when the test ends; the server is shared
// by all tests of the test binary. Tests that stop the server take StartPostgres.
func Postgres(tb testing.TB) string {
	tb.Helper()
	server, err := sharedPostgres()
	if err != nil {
		giveUp(tb, err)
	}
	name := "test_" + strings.ToLower(rand.Text())
	PSQL(tb, server.DSN, "create database "+name)
	tb.Cleanup(func() {
		// the test's own context has ended by now
		if _, err := psql(context.Background(), server.DSN, "drop database "+name+" with (force)"); err != nil {
			tb.Errorf("postgres: %v", err)
		}
	})
	dsn, err := url.Parse(server.DSN)
	if err != nil {
		tb.Fatal(err)
	}
	dsn.Path = "/" + name
	return dsn.String()
}

// StartPostgres starts a PostgreSQL of the test's own.
func StartPostgres(tb testing.TB) *PostgresServer {
	tb.Helper()
	server, err := newPostgres()
	if err != nil {
		giveUp(tb, err)
	}
	tb.Cleanup(server.proc.close)
	return server
}

func newPostgres() (*PostgresServer, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	creds, err := unprivileged()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := tempDir("postgres", creds != nil)
	if err != nil {
		return nil, err
	}
	s := &PostgresServer{bin: bin}
	password := rand.Text()
	s.DSN = (&url.URL{
		Scheme: "postgres", User: url.UserPassword(postgresSuperuser, password),
		Host: hostPort(port), Path: "/postgres", RawQuery: "sslmode=disable",
	}).String()
	data := filepath.Join(dir, "data")
	s.proc = &process{
		name: "postgres", dir: dir, path: filepath.Join(bin, "postgres"), creds: creds,
		args: []string{
			"-D", data, "-p", strconv.Itoa(port), "-k", dir,
			"-c", "listen_addresses=" + loopback, "-c", "max_connections=200",
			"-c", "fsync=off", // its data must outlive Kill, but not the machine
		},
		// an immediate shutdown: the janitor's, and close's. It also releases the shared memory, which SIGKILL would not.
		quit: syscall.SIGQUIT,
		// the socket lies in a directory of our own: nobody else can answer there
		ready: func(ctx context.Context) error { return postgresReady(ctx, bin, dir, port) },
	}
	if err := initDB(s.proc, bin, data, password); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := s.proc.start(postgresStartTimeout); err != nil {
		s.proc.close()
		return nil, err
	}
	return s, nil
}

// postgresBin finds the directory of PostgreSQL's programs. Debian keeps the
// server's out of PATH, and its directories name the version: the newest wins.
func postgresBin() (string, error) {
	newest, version := "", -1
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/initdb", "/opt/homebrew/opt/postgresql@*/bin/initdb", "/usr/local/opt/postgresql@*/bin/initdb"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		for _, initdb := range found {
			bin := filepath.Dir(initdb)
			name := filepath.Base(filepath.Dir(bin))
			n, err := strconv.Atoi(name[strings.LastIndex(name, "@")+1:])
			if err == nil && n > version {
				newest, version = bin, n
			}
		}
	}
	if newest != "" {
		return newest, nil
	}
	// PATH comes last: what stands there may be a wrapper around another version
	if initdb, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(initdb), nil
	}
	return "", fmt.Errorf("postgresql is %w: apt-get install postgresql, or brew install postgresql@17", errNotInstalled)
}

// unprivileged returns what a child of root runs as, because PostgreSQL refuses
// to run as root. It is nil where the tests are not root themselves.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		account, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, fmt.Errorf("an account for postgres: %w", err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("account %s: %w", account.Username, err)
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("account %s: %w", account.Username, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func initDB(p *process, bin, data, password string) error {
	passwordFile := filepath.Join(p.dir, "password")
	if err := os.WriteFile(passwordFile, []byte(password), 0o600); err != nil {
		return err
	}
	if p.creds != nil {
		for _, path := range []string{p.dir, passwordFile} {
			if err := os.Chown(path, int(p.creds.Uid), int(p.creds.Gid)); err != nil {
				return err
			}
		}
	}
	cmd := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", postgresSuperuser, "--pwfile", passwordFile,
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync")
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.creds}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

func postgresReady(ctx context.Context, bin, socketDir string, port int) error {
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "pg_isready"), "-h", socketDir, "-p", strconv.Itoa(port)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("pg_isready: %w: %s", err, out)
	}
	return nil
}

// PID is the server's process id, 0 while it does not run.
func (s *PostgresServer) PID() int { return s.proc.pid() }

// Stop ends the server in an orderly way; its connections are cut.
func (s *PostgresServer) Stop() { s.proc.stop(syscall.SIGINT) }

// Kill ends the server at once, as a crash would.
func (s *PostgresServer) Kill() { s.proc.stop(syscall.SIGKILL) }

// Start starts a server that was stopped or killed, at the same address and
// with the same data.
func (s *PostgresServer) Start(tb testing.TB) {
	tb.Helper()
	// the children of a killed server hold its shared memory for a moment longer, and until then it refuses to start
	ctx, cancel := context.WithTimeout(tb.Context(), postgresStartTimeout)
	defer cancel()
	err := waitFor(ctx, func(context.Context) error { return s.proc.start(postgresStartTimeout) })
	if err != nil {
		tb.Fatal(err)
	}
}

// PSQL runs SQL on the database with that URL, all statements in one
// transaction where they allow it, and returns what psql prints without
// decoration: a row a line, columns parted by "|". An error fails the test.
func PSQL(tb testing.TB, dsn, sql string) string {
	tb.Helper()
	out, err := psql(tb.Context(), dsn, sql)
	if err != nil {
		tb.Fatalf("postgres: %v", err)
	}
	return out
}

func psql(ctx context.Context, dsn, sql string) (string, error) {
	bin, err := postgresBin()
	if err != nil {
		return "", err
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return "", errors.New("the DSN is not a URL") // the parser's error would quote the password
	}
	password, _ := u.User.Password()
	u.User = url.User(u.User.Username())
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", u.String(), "-c", sql)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password) // everybody can read a command line
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, stderr.String())
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

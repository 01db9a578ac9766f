package servers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	mariaDBStartTimeout = 60 * time.Second
	mariaDBUser         = "kca"
)

// MariaDBServer is a running MariaDB whose data survives Stop, Kill and Start,
// and is gone when the test ends. Its default collation ignores letter case, as
// that of an ordinary installation does.
type MariaDBServer struct {
	// DSN is that of the empty database `test` for a user who may do anything,
	// as go-sql-driver takes it: user:password@tcp(host:port)/test
	DSN string

	proc *process
}

// sharedMariaDB is one server for all of a test binary's tests: they each get
// a database of their own.
var sharedMariaDB = sync.OnceValues(newMariaDB)

// MariaDB returns the DSN of an empty database on a running MariaDB, for a
// user who may do anything. The database is dropped when the test ends; the
// server is shared by all tests of the test binary. Tests that stop the server
// take StartMariaDB.
func MariaDB(tb testing.TB) string {
	tb.Helper()
	server, err := sharedMariaDB()
	if err != nil {
		giveUp(tb, err)
	}
	name := "test_" + strings.ToLower(rand.Text())
	MariaDBSQL(tb, server.DSN, "create database "+name)
	tb.Cleanup(func() {
		// the test's own context has ended by now
		if _, err := mariaDBSQL(context.Background(), server.DSN, "drop database "+name); err != nil {
			tb.Errorf("mariadb: %v", err)
		}
	})
	return strings.TrimSuffix(server.DSN, "test") + name
}

// StartMariaDB starts a MariaDB of the test's own.
func StartMariaDB(tb testing.TB) *MariaDBServer {
	tb.Helper()
	server, err := newMariaDB()
	if err != nil {
		giveUp(tb, err)
	}
	tb.Cleanup(server.proc.close)
	return server
}

func newMariaDB() (*MariaDBServer, error) {
	daemon, install, err := mariaDBPrograms()
	if err != nil {
		return nil, err
	}
	creds, err := unprivileged() // mariadbd refuses to run as root
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := tempDir("mariadb", creds != nil)
	if err != nil {
		return nil, err
	}
	password := rand.Text()
	s := &MariaDBServer{DSN: fmt.Sprintf("%s:%s@tcp(%s)/test", mariaDBUser, password, hostPort(port))}
	data, init, socket := filepath.Join(dir, "data"), filepath.Join(dir, "init.sql"), filepath.Join(dir, "s")
	s.proc = &process{
		name: "mariadb", dir: dir, path: daemon, creds: creds,
		args: []string{
			"--no-defaults", "--datadir=" + data, "--port=" + strconv.Itoa(port), "--bind-address=" + loopback,
			"--socket=" + socket, "--pid-file=" + filepath.Join(dir, "pid"), "--init-file=" + init, "--skip-name-resolve",
			"--character-set-server=utf8mb4", "--collation-server=utf8mb4_general_ci", "--max-connections=200",
			"--innodb-flush-log-at-trx-commit=0", // its data must outlive Stop, but not the machine
		},
		quit:  syscall.SIGKILL,
		ready: func(ctx context.Context) error { _, err := mariaDBSQL(ctx, s.DSN, "select 1"); return err },
	}
	// run at each start: nobody can log in but our user
	accounts := fmt.Sprintf("create or replace user '%[1]s'@'%[3]s' identified by '%[2]s';\ngrant all on *.* to '%[1]s'@'%[3]s' with grant option;\n"+
		"drop user if exists 'root'@'localhost', 'root'@'127.0.0.1', 'root'@'::1';\ncreate database if not exists test;\n", mariaDBUser, password, loopback)
	if err := initMariaDB(s.proc, install, data, init, accounts); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := s.proc.start(mariaDBStartTimeout); err != nil {
		s.proc.close()
		return nil, err
	}
	return s, nil
}

// mariaDBPrograms finds the server, which Debian keeps out of some users' PATH,
// and the script that makes its system tables.
func mariaDBPrograms() (daemon, install string, err error) {
	for _, name := range []string{"mariadbd", "/usr/sbin/mariadbd"} {
		if daemon, err = exec.LookPath(name); err == nil {
			break
		}
	}
	if err == nil {
		install, err = exec.LookPath("mariadb-install-db")
	}
	if err != nil {
		return "", "", fmt.Errorf("mariadb is %w: apt-get install mariadb-server, or brew install mariadb", errNotInstalled)
	}
	return daemon, install, nil
}

func initMariaDB(p *process, install, data, init, accounts string) error {
	if err := os.WriteFile(init, []byte(accounts), 0o600); err != nil {
		return err
	}
	if p.creds != nil {
		for _, path := range []string{p.dir, init} {
			if err := os.Chown(path, int(p.creds.Uid), int(p.creds.Gid)); err != nil {
				return err
			}
		}
	}
	cmd := exec.Command(install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.creds}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mariadb-install-db: %w\n%s", err, out)
	}
	return nil
}

// Stop ends the server in an orderly way; its connections are cut.
func (s *MariaDBServer) Stop() { s.proc.stop(syscall.SIGTERM) }

// Kill ends the server at once, as a crash would.
func (s *MariaDBServer) Kill() { s.proc.stop(syscall.SIGKILL) }

// Start starts a server that was stopped or killed, at the same address and
// with the same data.
func (s *MariaDBServer) Start(tb testing.TB) {
	tb.Helper()
	if err := s.proc.start(mariaDBStartTimeout); err != nil {
		tb.Fatal(err)
	}
}

// MariaDBSQL runs SQL on the database with that DSN, and returns what the
// client prints without decoration: a row a line, columns parted by tabs. An
// error fails the test.
func MariaDBSQL(tb testing.TB, dsn, sql string) string {
	tb.Helper()
	out, err := mariaDBSQL(tb.Context(), dsn, sql)
	if err != nil {
		tb.Fatalf("mariadb: %v", err)
	}
	return out
}

var mariaDBDSN = regexp.MustCompile(`^([^:]+):([^@]+)@tcp\(([^:]+):(\d+)\)/(\w+)$`)

func mariaDBSQL(ctx context.Context, dsn, sql string) (string, error) {
	parts := mariaDBDSN.FindStringSubmatch(dsn)
	if parts == nil {
		return "", errors.New("the DSN is not one of this package's")
	}
	cmd := exec.CommandContext(ctx, "mariadb", "--no-defaults", "--batch", "--skip-column-names", "--default-character-set=utf8mb4", "--protocol=tcp",
		"--user="+parts[1], "--host="+parts[3], "--port="+parts[4], "--database="+parts[5], "--execute="+sql)
	cmd.Env = append(os.Environ(), "MYSQL_PWD="+parts[2]) // everybody can read a command line
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("mariadb: %w: %s", err, stderr.String())
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

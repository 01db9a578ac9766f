// Package servers starts the real servers that tests need: Redis, PostgreSQL, MariaDB
// and Keycloak, each on a free loopback port with its files in a temporary
// directory.
//
// A server that is not installed skips the test with a message that says how
// to get it; with KCA_REQUIRE_SERVERS=1 in the environment it fails the test
// instead, which is how CI proves that nothing was skipped. A server that is
// installed but does not start always fails the test.
//
// Nothing survives the test binary, not even one that was killed: each server
// has a small shell beside it that waits for the end of its standard input,
// which only the test binary holds open, and then ends the server and removes
// its directory.
package servers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// loopback is the only address the servers listen on.
const loopback = "127.0.0.1"

// requireEnv is the environment variable that turns skips into failures.
const requireEnv = "KCA_REQUIRE_SERVERS"

// errNotInstalled marks the errors that skip a test. Its text, with the remedy
// that wraps it, is the skip message.
var errNotInstalled = errors.New("not installed")

// giveUp ends a test whose server could not be had: it skips where the server
// is not installed and fails in every other case.
func giveUp(tb testing.TB, err error) {
	tb.Helper()
	if errors.Is(err, errNotInstalled) && os.Getenv(requireEnv) != "1" {
		tb.Skipf("SKIPPED, A REAL SERVER IS MISSING: %v", err)
	}
	tb.Fatalf("starting a real server: %v", err)
}

// waitFor calls ready every few milliseconds until it returns nil. Its error
// is the last one ready gave, once ctx has ended.
func waitFor(ctx context.Context, ready func(context.Context) error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// freePort returns a TCP port that nothing listens on. It lies below the range
// from which Linux and macOS take ports for outgoing connections, so that no
// client takes it before the server, or while the server is being restarted.
func freePort() (int, error) {
	const low, high, attempts = 10_000, 32_000, 100
	var err error
	for range attempts {
		port := low + rand.IntN(high-low)
		var l net.Listener
		if l, err = net.Listen("tcp", hostPort(port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("no free port between %d and %d: %w", low, high, err)
}

func hostPort(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

// tempDir makes a new directory under the first usable place for temporary
// files. A place is usable for another user only if that user may pass through
// every directory above it, which a TMPDIR inside root's home does not allow.
func tempDir(name string, forOtherUser bool) (string, error) {
	var errs []error
	for _, parent := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if forOtherUser && !traversable(parent) {
			errs = append(errs, fmt.Errorf("%s: other users cannot enter it", parent))
			continue
		}
		dir, err := os.MkdirTemp(parent, "kca-"+name+"-")
		if err == nil {
			return dir, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("no place for temporary files: %w", errors.Join(errs...))
}

// traversable reports whether everybody may pass through dir and all above it.
func traversable(dir string) bool {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return true
		}
		dir = parent
	}
}

package servers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// verdict is a testing.TB that notes how a test ended.
type verdict struct {
	testing.TB
	skipped, failed string
}

func (v *verdict) Helper() {}

func (v *verdict) Skipf(format string, args ...any) {
	v.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (v *verdict) Fatalf(format string, args ...any) {
	v.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestGiveUp(t *testing.T) {
	missing := fmt.Errorf("redis-server is %w: apt-get install redis-server", errNotInstalled)
	broken := errors.New("redis: it ended at once")
	for name, test := range map[string]struct {
		err     error
		require string
		skips   bool
	}{
		"a missing server skips the test":                  {err: missing, skips: true},
		"a missing server fails a test that must not skip": {err: missing, require: "1"},
		"a server that does not start fails the test":      {err: broken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(requireEnv, test.require)
			var v verdict
			done := make(chan struct{})
			go func() {
				defer close(done)
				giveUp(&v, test.err)
			}()
			<-done
			message := v.failed
			if test.skips {
				message = v.skipped
			}
			if !strings.Contains(message, test.err.Error()) {
				t.Errorf("skipped with %q, failed with %q", v.skipped, v.failed)
			}
		})
	}
}

func TestStartTellsWhyAServerEnded(t *testing.T) {
	dir, err := tempDir("broken", false)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{
		name: "broken", dir: dir, path: "/bin/sh", args: []string{"-c", "echo the reason; exit 1"}, quit: syscall.SIGTERM,
		ready: func(context.Context) error { return errors.New("no answer") },
	}
	err = p.start(time.Minute)
	p.close()
	if err == nil || !strings.Contains(err.Error(), "ended at once") || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("the error is %v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("its directory is still there: %v", err)
	}
}

func TestStartGivesUpOnAServerThatNeverAnswers(t *testing.T) {
	dir, err := tempDir("mute", false)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{
		name: "mute", dir: dir, path: "/bin/sh", args: []string{"-c", "exec sleep 600"}, quit: syscall.SIGTERM,
		ready: func(context.Context) error { return errors.New("no answer") },
	}
	defer p.close()
	err = p.start(50 * time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "not ready within 50ms") {
		t.Errorf("the error is %v", err)
	}
	if p.pid() != 0 {
		t.Error("it still runs")
	}
}

// A test binary that is killed runs no cleanup: the janitor must do it.
func TestNothingSurvivesAKilledTestBinary(t *testing.T) {
	if os.Getenv("KCA_TEST_VICTIM") == "1" {
		server := Redis(t)
		fmt.Println("victim", server.PID(), server.proc.dir)
		select {} // until it is killed
	}
	if _, err := exec.LookPath("redis-server"); err != nil {
		Redis(t) // skips, or fails where it must
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	victim := exec.Command(binary, "-test.run=^"+t.Name()+"$")
	victim.Env = append(os.Environ(), "KCA_TEST_VICTIM=1")
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var dir string
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) == 3 && words[0] == "victim" {
			if pid, err = strconv.Atoi(words[1]); err != nil {
				t.Fatal(err)
			}
			dir = words[2]
		}
	}
	if pid == 0 {
		t.Fatal("the victim started no server")
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait() // it was killed
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = waitFor(ctx, func(context.Context) error {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			return fmt.Errorf("%s is still there: %w", dir, err)
		}
		if running(pid) {
			return fmt.Errorf("process %d still runs", pid)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// running reports whether a process exists and is not merely waiting for its
// parent to take notice of its end.
func running(pid int) bool {
	if err := syscall.Kill(pid, 0); err != nil {
		return false
	}
	state, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && !strings.HasPrefix(strings.TrimSpace(string(state)), "Z")
}

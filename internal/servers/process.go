package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a server may take to end in its own way before it is
// killed.
const stopGrace = 10 * time.Second

// process is one server program that can be started, stopped and killed again
// and again with the same arguments. It leads a process group of its own, so
// that a signal reaches its children too and a Ctrl-C on the tests does not.
type process struct {
	name  string
	dir   string   // holds the server's files and its log; removed by close
	path  string   // the program
	args  []string // its arguments, without the program
	env   []string // its whole environment; nil for the tests' own
	creds *syscall.Credential
	quit  syscall.Signal // asks for an orderly end

	// ready returns nil once the server answers. It must not be fooled by
	// another server on the same port.
	ready func(context.Context) error

	mu      sync.Mutex
	cmd     *exec.Cmd
	exited  chan struct{} // closed when cmd has ended
	janitor *exec.Cmd
	tell    io.WriteCloser // the janitor's standard input
}

// janitorScript reads process ids until its input ends, then ends the process
// group named last and removes the directory. Zero stands for no process.
const janitorScript = `
pid=0
while read -r line; do pid=$line; done
if [ "$pid" -gt 0 ] && kill -s "$1" -- "-$pid" 2>/dev/null; then
	tries=0
	while [ $tries -lt 50 ] && kill -0 -- "-$pid" 2>/dev/null; do
		sleep 0.1
		tries=$((tries + 1))
	done
	kill -s KILL -- "-$pid" 2>/dev/null
fi
rm -rf -- "$2"
`

// start runs the program and returns when it is ready, or with an error that
// ends in the last lines of its log. It does nothing while the program runs.
func (p *process) start(timeout time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.alive() {
		return nil
	}
	if err := p.hireJanitor(); err != nil {
		return err
	}
	logFile, err := os.OpenFile(p.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	// not CommandContext: the server outlives the test that starts it
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir, cmd.Env = p.dir, p.env
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: p.creds}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited = cmd, exited
	_, _ = fmt.Fprintln(p.tell, cmd.Process.Pid) // a janitor that is gone has nothing to clean
	ctx, cancel := context.WithTimeoutCause(context.Background(), timeout, fmt.Errorf("not ready within %s", timeout))
	defer cancel()
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(exited)  // first: who is told by the other looks whether it is alive
		cancel()
	}()
	if err := waitFor(ctx, p.ready); err != nil {
		if !p.alive() {
			err = errors.New("it ended at once")
		}
		p.halt(syscall.SIGKILL)
		return fmt.Errorf("%s: %w; its log ends in:\n%s", p.name, err, p.logTail())
	}
	return nil
}

// hireJanitor starts the shell that cleans up after a killed test binary.
// It needs the lock.
func (p *process) hireJanitor() error {
	if p.janitor != nil {
		return nil
	}
	janitor := exec.Command("/bin/sh", "-c", janitorScript, "janitor", signalNumber(p.quit), p.dir)
	janitor.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	tell, err := janitor.StdinPipe()
	if err != nil {
		return err
	}
	if err := janitor.Start(); err != nil {
		return fmt.Errorf("starting the shell that cleans up: %w", err)
	}
	p.janitor, p.tell = janitor, tell
	return nil
}

func signalNumber(s syscall.Signal) string { return strconv.Itoa(int(s)) }

// alive reports whether the program runs. It needs the lock.
func (p *process) alive() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// pid is the program's process id, 0 while it does not run.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.alive() {
		return 0
	}
	return p.cmd.Process.Pid
}

// signal sends sig to the program and its children. It does nothing while the
// program does not run.
func (p *process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.alive() {
		return nil
	}
	return syscall.Kill(-p.cmd.Process.Pid, sig)
}

// stop sends sig, waits for the end and kills what has not ended by then.
func (p *process) stop(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.halt(sig)
}

// halt is stop with the lock held.
func (p *process) halt(sig syscall.Signal) {
	if !p.alive() {
		return
	}
	pid := p.cmd.Process.Pid
	// A stopped process acts on no signal but SIGKILL. Errors mean that the
	// group has ended on its own, and then exited is closed.
	_ = syscall.Kill(-pid, syscall.SIGCONT)
	_ = syscall.Kill(-pid, sig)
	select {
	case <-p.exited:
	case <-time.After(stopGrace):
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		<-p.exited
	}
	_, _ = fmt.Fprintln(p.tell, 0)
}

// close ends the program for good and removes its directory.
func (p *process) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.halt(p.quit)
	if p.janitor == nil {
		_ = os.RemoveAll(p.dir)
		return
	}
	_ = p.tell.Close()
	_ = p.janitor.Wait()
	p.janitor = nil
}

func (p *process) logPath() string { return filepath.Join(p.dir, p.name+".log") }

// logTail is the end of the program's log, for error messages.
func (p *process) logTail() string {
	const most = 2048
	data, err := os.ReadFile(p.logPath())
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-most):])
}

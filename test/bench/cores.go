package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// cores says which processor serves and which one makes the load.
type cores struct {
	pinned bool
	why    string // not pinned
}

const (
	serverCore = 0
	loadCore   = 1
)

// newCores pins this process, if there are two processors and the means to do it.
func newCores(ctx context.Context, wanted bool) cores {
	switch _, err := exec.LookPath("taskset"); {
	case !wanted:
		return cores{why: "it was not asked for"}
	case runtime.NumCPU() < 2:
		return cores{why: "there is only one processor: server and load compete, and the figures are of little worth"}
	case err != nil:
		return cores{why: "there is no taskset here: server and load may move and compete"}
	}
	if err := pin(ctx, os.Getpid(), loadCore); err != nil {
		return cores{why: err.Error()}
	}
	runtime.GOMAXPROCS(1)
	return cores{pinned: true}
}

// String says where what runs.
func (c cores) String() string {
	if c.pinned {
		return fmt.Sprintf("servers on core %d with GOMAXPROCS=1, load on core %d", serverCore, loadCore)
	}
	return "not pinned: " + c.why
}

// serve pins a server and what it will start.
func (c cores) serve(ctx context.Context, pid int) error {
	if !c.pinned {
		return nil
	}
	return pin(ctx, pid, serverCore)
}

// everywhere lets this process use all processors while f runs, for what is not
// measured.
func (c cores) everywhere(ctx context.Context, f func() error) error {
	if !c.pinned {
		return f()
	}
	if err := pinTo(ctx, os.Getpid(), "0-"+strconv.Itoa(runtime.NumCPU()-1)); err != nil {
		return err
	}
	runtime.GOMAXPROCS(runtime.NumCPU())
	err := f()
	runtime.GOMAXPROCS(1)
	if again := pin(ctx, os.Getpid(), loadCore); err == nil {
		err = again
	}
	return err
}

// environment is what servers are started with.
func (c cores) environment() []string {
	if !c.pinned {
		return nil
	}
	return []string{"GOMAXPROCS=1"}
}

func pin(ctx context.Context, pid, core int) error { return pinTo(ctx, pid, strconv.Itoa(core)) }

// pinTo moves all threads of a process; those it makes later follow the ones that
// made them.
func pinTo(ctx context.Context, pid int, list string) error {
	out, err := exec.CommandContext(ctx, "taskset", "--all-tasks", "--cpu-list", "--pid", list, strconv.Itoa(pid)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("taskset: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// tick is the unit of the processor times in /proc: on Linux it is 10 ms everywhere,
// as programs are told it.
const tick = 10 * time.Millisecond

// cpuTime is how long processes have had a processor, 0 where there is no /proc.
func cpuTime(pids []int) time.Duration {
	var total time.Duration
	for _, pid := range pids {
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil {
			return 0
		}
		// the name stands in parentheses, and may hold anything (proc_pid_stat(5))
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		const user, system = 11, 12 // of the fields after the name
		if len(fields) <= system {
			return 0
		}
		for _, field := range fields[user : system+1] {
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0
			}
			total += time.Duration(ticks) * tick
		}
	}
	return total
}

// processor is the name of the machine's processor, as far as it tells.
func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(info)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return runtime.GOARCH
}

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

// site is a running Caddy of its own, with one site.
type site struct {
	*servers.CaddyServer
	owner *owner
	pids  []int // of all that serves its requests
}

// Ways to answer, at the end of a site.
const (
	// respond answers at once. Requests of the sample, and of bare Caddys too, are told
	// what the application would have been told.
	respond = `
	@who header X-Bench-Who *
	respond @who "{http.request.header.X-User-ID}|{http.request.header.X-Tenant-ID}|{http.request.header.X-Member-ID}"
	respond "hello"`

	// proxy asks the upstream, whose address it is completed with.
	proxy = "\n\treverse_proxy %s"
)

// startSite starts Caddy with a site of these directives. Access logs are off and logs
// at INFO, as they are without a word, and HTTP/1.1 is all it speaks.
func (b *bench) startSite(o *owner, directives string) *site {
	s := &site{CaddyServer: servers.StartCaddy(o, b.caddy, b.cores.environment()...), owner: o}
	s.pids = []int{s.PID()}
	if strings.Contains(directives, b.upstream.addr) {
		s.pids = append(s.pids, b.upstream.pid)
	}
	if err := b.cores.serve(o.ctx, s.PID()); err != nil {
		o.Fatal(err)
	}
	s.LoadCaddyfile(o, caddyfile("admin "+s.AdminListen, s.Addr, directives))
	return s
}

// caddyfile is a whole configuration.
func caddyfile(admin, addr, directives string) string {
	host, port, _ := strings.Cut(addr, ":")
	return `{
	` + admin + `
	auto_https off
	persist_config off
	grace_period 1s
	servers {
		protocols h1
	}
}
http://:` + port + ` {
	bind ` + host + directives + `
}
`
}

// login is the directive, with options besides the least there must be.
func (b *bench) login(options ...string) string {
	return `
	keycloak_cache_auth {
		issuer ` + b.crowd.realm.Issuer() + `
		audience ` + audience + `
		` + strings.Join(options, "\n\t\t") + `
	}`
}

// Options of the directive.
const (
	askNobody = "resolver bench"
	lastLong  = "ttl 24h" // no member ends during a run
)

func memoryOf(size string) string { return "memory {\n\t\t\tmax_size " + size + "\n\t\t}" }

// metric sums the samples of a metric whose labels hold all these texts.
func (s *site) metric(name string, labels ...string) float64 {
	var sum float64
	for line := range strings.Lines(s.Metrics(s.owner)) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' || !holdsAll(rest, labels) {
			continue
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			s.owner.Fatalf("metric %s: %v", name, err)
		}
		sum += value
	}
	return sum
}

func holdsAll(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// heap is how much of the heap is in use after a collection, in bytes.
func (s *site) heap() float64 {
	if _, err := s.Admin(s.owner.ctx, http.MethodGet, "/debug/pprof/heap?gc=1", "", ""); err != nil {
		s.owner.Fatal(err)
	}
	return s.metric("go_memstats_heap_alloc_bytes")
}

// held is how many members are in memory, and the bytes that the cache thinks they
// take.
func (s *site) held() (entries int, bytes uint64) {
	answer, err := s.Admin(s.owner.ctx, http.MethodGet, "/keycloak_cache_auth/stats", "", "")
	if err != nil {
		s.owner.Fatal(err)
	}
	var stats struct {
		Stores []struct {
			Entries int    `json:"entries"`
			Bytes   uint64 `json:"bytes"`
		} `json:"stores"`
	}
	if err := json.Unmarshal([]byte(answer), &stats); err != nil {
		s.owner.Fatal(err)
	}
	for _, one := range stats.Stores {
		entries, bytes = entries+one.Entries, bytes+one.Bytes
	}
	return entries, bytes
}

// upstreamServer is the application.
type upstreamServer struct {
	addr   string
	socket string // where whatever comes gets the same bytes
	pid    int
}

// build compiles a package of this module.
func build(ctx context.Context, output, target string, flags ...string) error {
	args := append([]string{"build", "-o", output}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, target)...)
	cmd.Dir = moduleDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", target, err, out)
	}
	return nil
}

// moduleDir is where the module's go.mod is: the directory that this runs in, or the
// one of its tests.
func moduleDir() string {
	dir, err := os.Getwd()
	if err != nil {
		return "."
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at
		}
		if at == filepath.Dir(at) {
			return dir
		}
	}
}

// startUpstream starts the application, which ends with its standard input.
func (b *bench) startUpstream() error {
	path := filepath.Join(b.dir, "upstream")
	if err := build(b.owner.ctx, path, "./test/bench/upstream"); err != nil {
		return err
	}
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), b.cores.environment()...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.owner.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	b.upstream.pid = cmd.Process.Pid
	lines := bufio.NewReader(stdout)
	for _, addr := range []*string{&b.upstream.addr, &b.upstream.socket} {
		line, err := lines.ReadString('\n')
		if err != nil {
			return errors.Join(errors.New("the upstream did not start"), err)
		}
		*addr = strings.TrimSpace(line)
	}
	return b.cores.serve(b.owner.ctx, b.upstream.pid)
}

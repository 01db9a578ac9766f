package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

// startCase measures how long a new process takes to its first good answer, with a
// Redis store and the sql resolver: of bare Caddy, of one with nothing to reach, whose
// good answer is 503, and of one with everything up.
func (b *bench) startCase(o *owner) error {
	p := b.crowd.different(1)[0]
	database, server := servers.StartPostgres(o), servers.Redis(o)
	servers.PSQL(o, database.DSN, `
		create table members (kc_id text, tenant text, active boolean, id text, primary key (tenant, kc_id));
		insert into members values ('`+p.id+`', '`+tenantNames(1)[0]+`', true, 'm-`+p.id+`')`)
	nowhere, err := closedPort()
	if err != nil {
		return err
	}
	full := func(redis, dsn, realm string) string {
		return fmt.Sprintf(`
	keycloak_cache_auth {
		issuer %s {
			backchannel_url %s
		}
		audience %s
		store redis://%s/0
		resolver sql {
			driver postgres
			dsn "%s"
			query "select kc_id, tenant, active, id from members where kc_id = :kc_id and tenant = :tenant"
		}
	}`, b.crowd.realm.Issuer(), realm, audience, redis, dsn) + respond
	}
	starters := []starter{
		{"bare", respond, http.StatusOK},
		{"nothing reachable", full(nowhere, "postgres://nobody@"+nowhere+"/none?sslmode=disable", "http://"+nowhere+"/realms/bench"), http.StatusServiceUnavailable},
		{"everything up", full(server.Addr, database.DSN, b.crowd.realm.URL()), http.StatusOK},
	}
	took := make([][]float64, len(starters))
	for range b.Starts {
		for i, s := range starters {
			d, err := b.start(o, s, p)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			took[i] = append(took[i], float64(d)/float64(time.Millisecond))
		}
	}
	over := func(i int) []float64 {
		result := make([]float64, len(took[i]))
		for n := range result {
			result[n] = took[i][n] - took[0][n]
		}
		return result
	}
	for i, key := range []string{keyStartDown, keyStartUp} {
		b.report.set(key, over(i+1), fmt.Sprintf("%.0f ms, bare Caddy %.0f ms; medians of %d starts", median(took[i+1]), median(took[0]), b.Starts))
	}
	return nil
}

// starter is a configuration, and the status of the answer that is waited for.
type starter struct {
	name, directives string
	status           int
}

const startTimeout = 30 * time.Second

// start starts Caddy and returns how long it took, from before the process was there,
// until a request was answered as wanted.
func (b *bench) start(o *owner, s starter, p person) (time.Duration, error) {
	addr, err := closedPort()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp(b.dir, "start-")
	if err != nil {
		return 0, err
	}
	config := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(config, []byte(caddyfile("admin off", addr, s.directives)), 0o600); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(o.ctx, startTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.caddy, "run", "--config", config, "--adapter", "caddyfile")
	if b.cores.pinned { // from its first moment on
		cmd = exec.CommandContext(ctx, "taskset", append([]string{"--cpu-list", fmt.Sprint(serverCore)}, cmd.Args...)...)
	}
	cmd.Env = append(append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir), b.cores.environment()...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // that it was asked to end is no news
	}()
	request, _ := (&visits{people: []person{p}, tenants: tenantNames(1), pick: one}).next(0, nil)
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for {
		status, err := ask(ctx, addr, request)
		switch {
		case err == nil && status == s.status:
			return time.Since(begun), nil
		case err == nil:
			err = fmt.Errorf("the last answer was %d", status)
		}
		select {
		case <-ctx.Done():
			return 0, errors.Join(errors.New("no answer in time"), err)
		case <-tick.C:
		}
	}
}

// ask sends one request on a connection of its own.
func ask(ctx context.Context, addr string, request []byte) (int, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return 0, err
		}
	}
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return 0, err
	}
	var status int
	_, err = fmt.Sscanf(strings.TrimSpace(line), "HTTP/1.1 %d", &status)
	return status, err
}

// closedPort is an address on loopback that nothing listens on.
func closedPort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

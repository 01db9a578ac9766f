package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// demo is everything while it runs.
type demo struct {
	opts    options
	dir     string // temporary
	realm   *realm
	members *members
	caddy   *runningCaddy

	site, admin           string // Caddy's addresses, as curl takes them
	upstreamAddr, control string // the application's, and the demo's own

	closers []func() error // in the order of starting
}

// start starts everything, or nothing.
func start(ctx context.Context, opts options) (*demo, error) {
	d := &demo{opts: opts}
	if err := d.start(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *demo) start(ctx context.Context) error {
	listenAt, err := listenAddress(ctx, d.opts.listen)
	if err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "kca-demo-"); err != nil {
		return err
	}
	d.onClose(func() error { return os.RemoveAll(d.dir) })

	if err := d.startRealm(ctx); err != nil {
		return err
	}
	if err := d.openMembers(ctx); err != nil {
		return err
	}
	if err := d.serve(ctx, &d.upstreamAddr, http.HandlerFunc(echo)); err != nil {
		return err
	}
	if err := d.serve(ctx, &d.control, d.controls()); err != nil {
		return err
	}
	return d.startCaddy(ctx, listenAt)
}

func (d *demo) startRealm(ctx context.Context) (err error) {
	if d.opts.keycloak == "" {
		d.realm, err = embedKeycloak()
	} else {
		d.realm, err = setUpKeycloak(ctx, d.opts.keycloak, d.opts.keycloakAdmin)
	}
	if err != nil {
		return err
	}
	d.onClose(func() error { d.realm.close(); return nil })
	return nil
}

func (d *demo) openMembers(ctx context.Context) (err error) {
	if d.opts.postgres == "" {
		d.members, err = openSQLite(ctx, d.dir, d.realm.ids)
	} else {
		d.setenv(postgresEnv, d.opts.postgres)
		d.members, err = openPostgres(ctx, d.opts.postgres, d.realm.ids)
	}
	if err != nil {
		return err
	}
	d.onClose(d.members.close)
	return nil
}

func (d *demo) serve(ctx context.Context, address *string, handler http.Handler) error {
	at, stop, err := serve(ctx, handler)
	if err != nil {
		return err
	}
	*address = at
	d.onClose(stop)
	return nil
}

func (d *demo) startCaddy(ctx context.Context, listenAt string) error {
	host, port, err := net.SplitHostPort(listenAt)
	if err != nil {
		return err
	}
	if d.admin, err = freeAddress(ctx, anyPort); err != nil {
		return err
	}
	redisOptions, err := parseRedis(d.opts.redis)
	if err != nil {
		return err
	}
	d.site = net.JoinHostPort(cmp.Or(host, "127.0.0.1"), port)
	s := site{
		Admin: d.admin, Host: host, Port: port, Upstream: d.upstreamAddr,
		Storage: filepath.Join(d.dir, "caddy"), Verbose: d.opts.verbose, TTL: d.opts.ttl,
		Driver: d.members.driver, DSN: d.members.dsn, Query: membersQuery,
	}
	s.setRealm(d.realm)
	if redisOptions != nil {
		d.setenv(redisEnv, d.opts.redis)
		s.Redis = "{env." + redisEnv + "}"
		s.Namespace = "run-" + strings.ToLower(rand.Text()[:10]) // not what an earlier run left there
	}
	if d.caddy, err = startCaddy(s, d.dir); err != nil {
		return err
	}
	d.onClose(d.caddy.close)
	if redisOptions != nil {
		// not before the module has turned go-redis's own log off
		return pingRedis(ctx, redisOptions)
	}
	return nil
}

// setenv sets a variable of this process until the demo ends.
func (d *demo) setenv(name, value string) {
	_ = os.Setenv(name, value) // fails only for names that are none
	d.onClose(func() error { return os.Unsetenv(name) })
}

func (d *demo) onClose(f func() error) { d.closers = append(d.closers, f) }

// close ends everything and leaves nothing behind on this machine.
func (d *demo) close() error {
	var errs []error
	for _, f := range slices.Backward(d.closers) {
		errs = append(errs, f())
	}
	d.closers = nil
	return errors.Join(errs...)
}

package sqlresolver

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/shared"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// listeners outlive a configuration, so that a reload misses no change.
var listeners = shared.NewPool[*listener]()

// channelName is what a channel may be called: an identifier of PostgreSQL's
// that looks the same quoted and in a call of pg_notify.
var channelName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// provisionListener takes a share of the listener. It does not connect.
func (r *Resolver) provisionListener() error {
	if r.InvalidateOnNotify == "" {
		if r.ListenDSN != "" {
			return errors.New("listen_dsn: nothing listens; add invalidate_on_notify, or leave it out")
		}
		return nil
	}
	if r.Driver != "postgres" {
		return errors.New("invalidate_on_notify: only PostgreSQL notifies; leave it out and choose a short ttl, or have the application flush")
	}
	if !channelName.MatchString(r.InvalidateOnNotify) {
		return errors.New("invalidate_on_notify: a channel's name has letters, digits and _, begins with no digit and has at most 63 characters")
	}
	option, dsn := "listen_dsn", r.ListenDSN
	if dsn == "" {
		option, dsn = "dsn", r.DSN
	}
	dsn, err := expandDSN(dsn)
	if err != nil {
		return fmt.Errorf("%s: %w", option, err)
	}
	if strings.Contains(dsn, tenantMark) {
		return errors.New("invalidate_on_notify: each tenant's database notifies only those who listen at it; leave the option out, or give the listen_dsn of one that is told of all changes")
	}
	r.listening = listening{DSN: dsn, Channel: r.InvalidateOnNotify}
	l, release, err := r.acquireListener()
	if err != nil {
		return fmt.Errorf("%s: %w", option, err)
	}
	r.listener, r.releases = l, append(r.releases, release)
	return nil
}

func (r *Resolver) acquireListener() (*listener, func() error, error) {
	return listeners.Acquire(r.listening, func() (*listener, error) { return newListener(r.listening) })
}

// Watch implements [member.Watcher] with `invalidate_on_notify`; without, it
// does nothing. The connection lasts for as long as anybody watches or a
// configuration names it, so ctx may outlive this one's.
func (r *Resolver) Watch(ctx context.Context, changed func(member.Change)) {
	if !r.Watches() {
		return
	}
	l, release, err := r.acquireListener()
	if err != nil {
		return // impossible: Provision did the same
	}
	go func() {
		defer func() { _ = release() }() // ends a connection, which cannot fail
		l.watch(ctx, r.log, changed)
	}()
}

// WatchIdentity implements [member.Watcher].
func (r *Resolver) WatchIdentity() string {
	if !r.Watches() {
		return ""
	}
	return r.listening.Channel + " " + r.listening.DSN
}

// Watches tells whether [Resolver.Watch] does anything.
func (r *Resolver) Watches() bool { return r.listener != nil }

// WatchState implements [member.WatchTeller].
func (r *Resolver) WatchState() member.WatchState {
	if !r.Watches() {
		return member.WatchState{}
	}
	state := r.listener.state()
	return member.WatchState{
		Connected: state.Connected, Failures: state.Failures, Changes: state.Notifications, Unreadable: state.Unreadable,
	}
}

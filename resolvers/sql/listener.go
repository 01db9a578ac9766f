package sqlresolver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// Times of the connection that listens. A dead one is noticed after at most
// listenQuiet and listenPing together, and answered by another attempt.
const (
	listenConnect  = 5 * time.Second // for connecting and LISTEN
	listenQuiet    = 5 * time.Second // without a notification, before it is tried
	listenPing     = 3 * time.Second // for the answer
	listenMinPause = 100 * time.Millisecond
	listenMaxPause = 5 * time.Second
	listenSteady   = 10 * time.Second // a connection that lasted so long was a good one
)

// listening are the settings of a listener, secrets included.
type listening struct {
	DSN     string
	Channel string
}

// listenerState is the state of the connection behind `invalidate_on_notify`.
type listenerState struct {
	// Channel is what it listens to.
	Channel string

	// Connected tells whether it listens now.
	Connected bool

	// Connects counts connections that were made. After each, everything is
	// taken to have changed.
	Connects uint64

	// Failures counts attempts to connect that failed, and connections that were
	// lost.
	Failures uint64

	// Notifications counts those received, Unreadable those of them that were
	// taken to mean everybody because they have none of the known forms.
	Notifications, Unreadable uint64

	// Widened counts changes that became those of a tenant, or of everybody,
	// because too many were waiting.
	Widened uint64
}

// listener has one connection to a PostgreSQL database, on which it listens to
// one channel for all its watchers. Configurations share it, so that a reload
// interrupts nothing.
type listener struct {
	listening
	stop  context.CancelFunc
	ctx   context.Context // ends with the listener, not with a configuration
	quiet time.Duration   // listenQuiet

	mu        sync.Mutex
	watchers  []*watcher // the first of them logs
	connected bool
	failing   bool // whether that was said already
	running   bool

	connects, failures, notifications, unreadable, widened atomic.Uint64
}

// watcher is one who wants to know of changes.
type watcher struct {
	*pending
	log *zap.Logger
}

// newListener prepares a listener. It connects for its first watcher.
func newListener(s listening) (*listener, error) {
	if _, err := parseListen(s.DSN); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &listener{listening: s, ctx: ctx, stop: cancel, quiet: listenQuiet}, nil
}

// parseListen reads a DSN for a connection that listens. It asks for no
// read-only session: `target_session_attrs=read-write` would take a primary
// for a standby, and standbys cannot LISTEN.
func parseListen(dsn string) (*pgx.ConnConfig, error) {
	config, err := parsePostgres(dsn)
	if err != nil {
		return nil, err
	}
	delete(config.RuntimeParams, "default_transaction_read_only")
	return config, nil
}

// Destruct ends the connection.
func (l *listener) Destruct() error {
	l.stop()
	return nil
}

// state describes the listener.
func (l *listener) state() listenerState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return listenerState{
		Channel: l.Channel, Connected: l.connected, Connects: l.connects.Load(), Failures: l.failures.Load(),
		Notifications: l.notifications.Load(), Unreadable: l.unreadable.Load(), Widened: l.widened.Load(),
	}
}

// watch tells changed of what happens until ctx ends. It blocks.
func (l *listener) watch(ctx context.Context, log *zap.Logger, changed func(member.Change)) {
	w := &watcher{pending: newPending(), log: log}
	l.join(w)
	defer l.leave(w)
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.filled:
		}
		for _, c := range w.take() {
			if ctx.Err() != nil {
				return
			}
			changed(c)
		}
	}
}

// join adds a watcher. One that comes to a connection that listens already has
// missed what was notified before.
func (l *listener) join(w *watcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchers = append(l.watchers, w)
	if l.connected {
		w.add(member.Change{All: true})
	}
	if !l.running {
		l.running = true
		go l.run()
	}
}

func (l *listener) leave(w *watcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, other := range l.watchers {
		if other == w {
			l.watchers = append(l.watchers[:i:i], l.watchers[i+1:]...)
		}
	}
}

// tell hands changes to all watchers. It never waits for one of them.
func (l *listener) tell(changes ...member.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.watchers {
		l.widened.Add(w.add(changes...))
	}
}

// run keeps a connection until the listener is given up.
func (l *listener) run() {
	pause := listenMinPause
	for {
		began := time.Now()
		err := l.listen()
		if l.ctx.Err() != nil {
			return
		}
		l.lost(err)
		if time.Since(began) > listenSteady {
			pause = listenMinPause
		}
		// spread, so that a restarted server does not meet all nodes at once
		timer := time.NewTimer(pause + rand.N(pause)/2) //nolint:gosec // no secret depends on it
		select {
		case <-l.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		pause = min(2*pause, listenMaxPause*2/3) // with the spread at most listenMaxPause
	}
}

// listen connects, and hands on what is notified until the connection fails.
func (l *listener) listen() error {
	conn, err := l.connect(l.ctx)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // it is useless either way
	}()
	l.established()
	for {
		ctx, cancel := context.WithTimeout(l.ctx, l.quiet)
		n, err := conn.WaitForNotification(ctx)
		cancel()
		switch {
		case err == nil:
			l.received(n)
		case pgconn.Timeout(err) && l.ctx.Err() == nil:
			ctx, cancel := context.WithTimeout(l.ctx, listenPing)
			err := conn.Ping(ctx)
			cancel()
			if err != nil {
				return fmt.Errorf("it did not answer: %w", err)
			}
		default:
			return err
		}
	}
}

// connect makes a connection that listens.
func (l *listener) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, listenConnect)
	defer cancel()
	config, err := parseListen(l.DSN) // anew: a file that it names may have changed
	if err != nil {
		return nil, ourError{err}
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	// The simple protocol, for nothing here is worth preparing.
	if _, err := conn.PgConn().Exec(ctx, "listen "+pgx.Identifier{l.Channel}.Sanitize()).ReadAll(); err != nil {
		_ = conn.Close(ctx)
		return nil, fmt.Errorf("listen: %w", err)
	}
	return conn, nil
}

// received hands on one notification.
func (l *listener) received(n *pgconn.Notification) {
	l.notifications.Add(1)
	changes, readable := readNotice(n.Payload)
	if !readable && l.unreadable.Add(1) == 1 {
		l.say(func(log *zap.Logger) {
			log.Warn("a notification has none of the forms that are documented, so everything was flushed; further ones are only counted",
				zap.String("channel", l.Channel))
		})
	}
	l.tell(changes...)
}

// established notes that the connection listens from now on. Whatever changed
// before that nobody was told of.
func (l *listener) established() {
	l.connects.Add(1)
	l.mu.Lock()
	l.connected, l.failing = true, false
	l.mu.Unlock()
	l.say(func(log *zap.Logger) {
		log.Info("listening for changes of members", zap.String("channel", l.Channel))
	})
	l.tell(member.Change{All: true})
}

// lost notes that the connection failed, or could not be made.
func (l *listener) lost(err error) {
	l.failures.Add(1)
	l.mu.Lock()
	said := l.failing
	l.connected, l.failing = false, true
	l.mu.Unlock()
	if said {
		return
	}
	l.say(func(log *zap.Logger) {
		log.Warn("not listening for changes of members; they are seen when their time has passed, and all is flushed once it listens again",
			zap.String("channel", l.Channel), zap.String("error", explainListen(err)))
	})
}

// explainListen returns the text of an error without secrets.
func explainListen(err error) string {
	if isOurs(err) {
		return err.Error()
	}
	if text := (&postgres{}).explain(err); text != "" {
		return strings.Join(strings.Fields(text), " ")
	}
	if pgconn.Timeout(err) {
		return "the server did not answer in time"
	}
	return fmt.Sprintf("the driver failed with a %T", err)
}

// say logs with the logger of the watcher that came last: the configuration it
// belongs to is the newest.
func (l *listener) say(what func(*zap.Logger)) {
	l.mu.Lock()
	var log *zap.Logger
	if n := len(l.watchers); n > 0 {
		log = l.watchers[n-1].log
	}
	l.mu.Unlock()
	if log != nil {
		what(log)
	}
}

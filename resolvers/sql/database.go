package sqlresolver

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// kind is a kind of database.
type kind struct {
	lexis lexis
	open  func(dsn string) (source, error)
}

// source is one database. It holds secrets, and shows none.
type source interface {
	// connector makes connections to the database.
	connector() driver.Connector

	// describe returns what tells the database from others.
	describe() string

	// types reads values whose type database/sql has no notion of.
	types() types

	// explain returns the text of an error without anything that came from
	// the query's values or the rows, as far as the database can be trusted
	// to tell. It returns "" if there is nothing that could be shown.
	explain(err error) string

	// secrets returns texts that must not be in the text of an error.
	secrets() []string

	// stale tells whether an error says that the connection or the prepared
	// statement had ceased to be good, so that another attempt may succeed.
	stale(err error) bool

	// impossible tells whether the query failed because a bound value is no
	// value of the type it is compared with, so that no row can equal it.
	impossible(ctx context.Context, db *sql.DB, text string, args []any, err error) bool
}

// settings are all the settings of a pool, secrets included.
type settings struct {
	Driver          string
	DSN             string
	MaxOpenConns    int
	MaxIdleConns    int
	ConnMaxLifetime time.Duration
	ConnMaxIdleTime time.Duration
}

// database is a source and the pool of connections to it. It may be shared by
// several configurations.
type database struct {
	source source
	db     *sql.DB

	// grace is how long a database that no configuration uses any more goes on
	// to answer: requests of the last one may still be being served.
	grace time.Duration
}

// newDatabase prepares a pool. It does not connect.
func newDatabase(k kind, s settings) (*database, error) {
	src, err := k.open(s.DSN)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(src.connector())
	db.SetMaxOpenConns(s.MaxOpenConns)
	db.SetMaxIdleConns(s.MaxIdleConns)
	db.SetConnMaxLifetime(s.ConnMaxLifetime)
	db.SetConnMaxIdleTime(s.ConnMaxIdleTime)
	return &database{source: src, db: db, grace: 5 * time.Second}, nil
}

// Destruct closes the idle connections at once, and the database after a while
// in which every query makes a connection of its own.
func (d *database) Destruct() error {
	d.db.SetMaxIdleConns(-1)
	time.AfterFunc(d.grace, func() {
		_ = d.db.Close() // there is nobody left to tell
	})
	return nil
}

// ask puts the query once, or twice if the first attempt met a connection that
// the database had closed meanwhile: the query only reads.
func (d *database) ask(ctx context.Context, st statement, q member.Query) (*member.Member, error) {
	args := st.args(q)
	m, err := d.attempt(ctx, st.text, args)
	if err != nil && ctx.Err() == nil && d.source.stale(err) {
		m, err = d.attempt(again(ctx), st.text, args)
	}
	if err == nil {
		return m, nil
	}
	if isOurs(err) {
		return nil, err
	}
	if d.source.impossible(ctx, d.db, st.text, args, err) {
		return nil, member.ErrUnknown
	}
	return nil, d.safe(ctx, err, q)
}

// attempt puts the query and reads its only row.
func (d *database) attempt(ctx context.Context, text string, args []any) (*member.Member, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rows, err := d.db.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // its errors are those of rows.Err

	// before the first row, so that a query without the right columns is noticed
	// also where it finds nobody
	columns, err := columnsOf(rows)
	if err != nil {
		cancel()
		return nil, err
	}
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return nil, err
		}
		return nil, member.ErrUnknown
	}
	m, err := readMember(rows, columns, d.source.types())
	if err != nil {
		cancel() // closing the rows would otherwise read the rest of them
		return nil, err
	}
	if rows.Next() {
		cancel()
		return nil, ourError{fmt.Errorf("%w: the query finds several rows; make (kc_id, tenant) unique in the database", member.ErrAmbiguous)}
	}
	return m, rows.Err()
}

// ourError is an error whose text is ours, as opposed to the driver's.
type ourError struct{ error }

func (e ourError) Unwrap() error { return e.error }

func ourErrorf(format string, args ...any) error {
	return ourError{fmt.Errorf(format, args...)}
}

func isOurs(err error) bool {
	var ours ourError
	return errors.Is(err, member.ErrUnknown) || errors.As(err, &ours)
}

// errClosed says that a query came after the database had been given up.
var errClosed = errors.New("the connections were closed by a reload of the configuration")

// safe returns an error for one of the driver's that holds no secret and no
// value. It wraps the context's error, and nothing of the driver's.
func (d *database) safe(ctx context.Context, err error, q member.Query) error {
	for _, cause := range []error{context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, cause) || errors.Is(ctx.Err(), cause) {
			return fmt.Errorf("querying the members: %w", cause)
		}
	}
	if strings.HasPrefix(err.Error(), "sql: database is closed") {
		return fmt.Errorf("querying the members: %w", errClosed)
	}
	text := d.source.explain(err)
	for _, value := range append(d.source.secrets(), q.KCID, q.Tenant, q.Issuer) {
		// shorter ones tell nothing, but are part of many messages
		if len(value) >= 4 && strings.Contains(text, value) {
			text = ""
		}
	}
	if text == "" {
		text = fmt.Sprintf("the driver failed with a %T, the text of which may hold values", err)
	}
	return fmt.Errorf("querying the members: %s", strings.Join(strings.Fields(text), " "))
}

type againKey struct{}

// again marks a second attempt, for which idle connections are to be tried
// before they are used.
func again(ctx context.Context) context.Context {
	return context.WithValue(ctx, againKey{}, true)
}

func isAgain(ctx context.Context) bool {
	return ctx.Value(againKey{}) != nil
}

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
	open  func(address) (source, error)
}

// address says where a database is, and how it is to be used.
type address struct {
	DSN string

	// Schema is PostgreSQL's search path, if it is not the DSN's: names parted
	// by commas, the first of which must exist.
	Schema string

	// Write tells whether the sessions may write.
	Write bool
}

// source is one database. It holds secrets, and shows none.
type source interface {
	// connector makes connections to the database.
	connector() driver.Connector

	// describe returns what tells the database from others.
	describe() string

	// hosts returns the hosts that are tried; none for a file.
	hosts() []string

	// types reads values whose type database/sql has no notion of.
	types() types

	// explain returns the text of an error without anything that came from
	// the query's values or the rows, as far as the database can be trusted
	// to tell. It returns "" if there is nothing that could be shown.
	explain(err error) string

	// secrets returns texts that must not be in the text of an error.
	secrets() []string

	// prepares tells whether queries are to be kept prepared, because the driver
	// would prepare them each time.
	prepares() bool

	// stale tells whether an error says that the connection or the prepared
	// statement had ceased to be good, so that another attempt may succeed.
	stale(err error) bool

	// absent tells whether there is no such database.
	absent(err error) bool

	// duplicate tells whether a statement failed because a row with such a key
	// is there already.
	duplicate(err error) bool

	// lock returns the statement that takes a lock by its number for a
	// transaction, and the one that gives it back if the end of the transaction
	// does not. Both are "" where transactions exclude each other.
	lock() (take, giveBack string)

	// impossible tells whether the query failed because a bound value is no
	// value of the type it is compared with, so that no row can equal it.
	impossible(ctx context.Context, db *sql.DB, text string, args []any, err error) bool
}

// settings are all the settings of a pool, secrets included.
type settings struct {
	address
	ofTenant        bool // not a setting: it follows from the place
	Driver          string
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
	statements

	// ofTenant tells whether the database belongs to one tenant, which may not
	// exist.
	ofTenant bool

	// grace is how long a database that no configuration uses any more goes on
	// to answer: requests of the last one may still be being served.
	grace time.Duration
}

// newDatabase prepares a pool. It does not connect.
func newDatabase(k kind, s settings) (*database, error) {
	src, err := k.open(s.address)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(src.connector())
	db.SetMaxOpenConns(s.MaxOpenConns)
	db.SetMaxIdleConns(s.MaxIdleConns)
	db.SetConnMaxLifetime(s.ConnMaxLifetime)
	db.SetConnMaxIdleTime(s.ConnMaxIdleTime)
	return &database{source: src, db: db, grace: 5 * time.Second, ofTenant: s.ofTenant}, nil
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

// Errors that are a certain answer rather than a failure.
var errImpossible = ourError{fmt.Errorf("%w: a value that is asked for is none of its column's type", member.ErrUnknown)}

// ask finds a member and, if there is a profile, enriches it.
func (d *database) ask(ctx context.Context, find, profile statement, q member.Query) (*member.Member, error) {
	m, err := d.find(ctx, find, q)
	if err != nil || profile.text == "" || !m.Active || m.KCID != q.KCID || m.Tenant != q.Tenant {
		return m, err // or it is refused whatever the profile says
	}
	return m, d.enrich(ctx, profile, q, m)
}

// find puts the query, twice if the first attempt met a connection that the
// database had closed meanwhile: the query only reads.
func (d *database) find(ctx context.Context, st statement, q member.Query) (*member.Member, error) {
	var m *member.Member
	err := d.retry(ctx, st, q, "", func(ctx context.Context, args []any) (err error) {
		m, err = d.attempt(ctx, d, st.text, args, q)
		return err
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// retry makes an attempt, or two, and an error that may be shown.
func (d *database) retry(ctx context.Context, st statement, q member.Query, id string, attempt func(context.Context, []any) error) error {
	args, err := st.args(q, id, d.source.types())
	if err != nil {
		return err
	}
	err = attempt(ctx, args)
	if err != nil && ctx.Err() == nil && d.source.stale(err) {
		err = attempt(again(ctx), args)
	}
	return d.told(ctx, st, q, args, err)
}

// told returns an error that says what can be said of one of the driver's.
func (d *database) told(ctx context.Context, st statement, q member.Query, args []any, err error) error {
	switch {
	case err == nil || isOurs(err):
		return err
	case d.ofTenant && d.source.absent(err):
		return errNoDatabase
	case d.source.impossible(ctx, d.db, st.text, args, err):
		return errImpossible
	}
	if name, ok := st.unbound(err); ok {
		return ourErrorf("the value of :%s does not fit the type that the query wants there; add a cast such as :%[1]s::text, or ::text[] for a list", name)
	}
	return d.safe(ctx, err, q)
}

// querier is a database, or a transaction in it.
type querier interface {
	QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error)
}

// attempt puts the query and reads its only row.
func (d *database) attempt(ctx context.Context, via querier, text string, args []any, q member.Query) (*member.Member, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rows, err := via.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // its errors are those of rows.Err

	// before the first row, so that a query without the right columns is noticed
	// also where it finds nobody
	columns, err := columnsOf(rows)
	if err == nil {
		err = checkRequired(columns)
	}
	if err == nil && isCheck(ctx) {
		err = checkTypes(columns)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	m, err := onlyMember(rows, columns, d.source.types(), q)
	if err != nil && !errors.Is(err, member.ErrUnknown) {
		cancel() // closing the rows would otherwise read the rest of them
	}
	return m, err
}

// maxAlike bounds the rows that are passed over because they only look like the
// one that was asked for.
const maxAlike = 16

// onlyMember reads the row that is the query's. Rows that a collation takes for
// it, and that differ from it in letter case or blanks at the end, are others'.
func onlyMember(rows *sql.Rows, columns []column, t types, q member.Query) (*member.Member, error) {
	var found *member.Member
	for n := 0; rows.Next(); n++ {
		if n > maxAlike {
			return nil, errSeveral
		}
		m, err := readMember(rows, columns, t)
		switch {
		case err != nil:
			return nil, err
		case onlyAlike(m.KCID, q.KCID) || onlyAlike(m.Tenant, q.Tenant):
		case found != nil:
			return nil, errSeveral
		default:
			found = m
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if found == nil {
		return nil, member.ErrUnknown
	}
	return found, nil
}

var errSeveral = ourError{fmt.Errorf("%w: the query finds several rows; make (kc_id, tenant) unique in the database", member.ErrAmbiguous)}

// onlyAlike tells whether two texts are different, but the same to a collation
// that ignores letter case and blanks at the end.
func onlyAlike(a, b string) bool {
	return a != b && strings.EqualFold(strings.TrimRight(a, " "), strings.TrimRight(b, " "))
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
	values := append(d.source.secrets(), q.KCID, q.Tenant, q.Issuer)
	for _, claim := range q.Claims {
		values = append(values, claim.Strings()...)
	}
	for _, value := range values {
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

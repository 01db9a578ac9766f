// Package sqlresolver finds members with a query to the application's own
// database.
package sqlresolver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/shared"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func init() {
	caddy.RegisterModule(Resolver{})
}

// Defaults and bounds of the pool settings.
const (
	defaultMaxOpenConns    = 10
	defaultConnMaxLifetime = 30 * time.Minute
	defaultConnMaxIdleTime = 5 * time.Minute
	maxMaxOpenConns        = 1000
)

// Resolver finds members in PostgreSQL or SQLite.
//
// The query must return one row per member, with at least the columns
// `kc_id`, `tenant`, `active` and `id`, named exactly so (in lower case; use
// `as` to name them). What comes in these columns is compared with the request
// by bytes: letter case counts whatever the database's collation says, and the
// blanks that pad a `char(n)` column count, too.
//
// Column | Meaning
// -------|--------
// `kc_id` | The user's Keycloak id, which must equal the token's `sub`. Text or uuid.
// `tenant` | The tenant, which must equal the request's. Text, uuid or integer.
// `active` | Whether the member may use the tenant now: a boolean, 0 or 1, or one of the texts t, f, true, false. NULL is inactive.
// `id` | The application's own id of the member. Text, uuid or integer.
// `issuer` | Optional. The issuer the record belongs to, which must equal the token's `iss`.
// any other | An attribute.
//
// Of attributes, numbers, booleans, uuids and times (RFC 3339, in UTC) become
// text. Arrays, and JSON arrays of scalars in a column of type JSON or JSONB,
// become lists. A database that has no type for lists, such as SQLite, returns
// one as text if the column is named with brackets:
// `json_group_array(role) as "roles[]"` gives the list `roles`. The attribute
// `roles` is always a list: a text that begins with `[` is read as a JSON array
// there, and any other text is the only role. An attribute that is NULL is
// absent. Columns of a type PostgreSQL does not bring itself (an array of an
// enum, say) need a cast: `roles::text[]`.
//
// A query that finds no row says that the user is not a member. One that finds
// two rows is refused, as are rows of more than 32 KiB, two columns of one
// name, NULL or empty text in `kc_id`, `tenant`, `id` or `issuer`, text that is
// not UTF-8, and binary columns.
//
// Connections are made when they are first needed, never when the
// configuration is loaded, and are kept over a reload that does not change
// the settings of the database. They are read-only: PostgreSQL's get
// `default_transaction_read_only`, SQLite's files are opened with `mode=ro`.
type Resolver struct {
	// The kind of database: `postgres` or `sqlite`. Required.
	Driver string `json:"driver,omitempty"`

	// Where the database is. Global placeholders such as `{env.MEMBERS_DSN}`
	// or `{file./run/secrets/members_dsn}` are expanded when the configuration
	// is loaded. Required.
	//
	// For `postgres` a URL or a list of `name=value` as libpq knows them, e.g.
	// `postgres://caddy:secret@db:5432/app?sslmode=verify-full`; the `PG…`
	// environment variables supply what is missing. Characters of a password
	// that mean something in a URL must be percent-encoded. Files named here
	// (`passfile`, `sslcert` …) are read anew for each connection. Queries are
	// prepared once per connection. Behind PgBouncer, list
	// `default_transaction_read_only` in its `ignore_startup_parameters`; if it
	// does not keep track of prepared statements, add
	// `default_query_exec_mode=exec`.
	//
	// For `sqlite` the path of an existing file, or a `file:` URI with no
	// parameters but `mode=ro` and `immutable=1`. A database in WAL mode that
	// no one else has open needs the file's directory to be writable for
	// Caddy's user.
	DSN string `json:"dsn,omitempty"`

	// The query, a single SELECT (or WITH, VALUES, TABLE). It is given the
	// parameters `:kc_id`, `:tenant` and `:issuer`, the first two of which it
	// must use. They are always bound, never put into the text. Placeholders
	// are not expanded. Required.
	Query string `json:"query,omitempty"`

	// The most connections to keep open at a time. A look-up that finds all of
	// them busy waits for one, until its own time-out. Default: 10; at most 1000.
	MaxOpenConns int `json:"max_open_conns,omitempty"`

	// The most connections to keep while there is nothing for them to do.
	// Default: as many as may be open.
	MaxIdleConns int `json:"max_idle_conns,omitempty"`

	// How old a connection may become before it is replaced. Default: 30m.
	ConnMaxLifetime caddy.Duration `json:"conn_max_lifetime,omitempty"`

	// How long a connection is kept while there is nothing for it to do.
	// Default: 5m.
	ConnMaxIdleTime caddy.Duration `json:"conn_max_idle_time,omitempty"`

	statement statement
	database  *database
	release   func() error
	identity  string
}

// CaddyModule returns the Caddy module information.
func (Resolver) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  member.Namespace + ".sql",
		New: func() caddy.Module { return new(Resolver) },
	}
}

// databases outlive a configuration, so that a reload keeps their connections.
var databases = shared.NewPool[*database]()

// Provision reads the query and prepares the database's pool. It does not
// connect.
func (r *Resolver) Provision(_ caddy.Context) error {
	kind, err := r.kind()
	if err != nil {
		return err
	}
	if r.Query == "" {
		return errors.New("query: none is given; add one that selects kc_id, tenant, active and id")
	}
	if r.statement, err = compile(r.Query, kind.lexis); err != nil {
		return fmt.Errorf("query: %w", err)
	}
	settings := r.settings()
	if settings.DSN, err = expandDSN(r.DSN); err != nil {
		return fmt.Errorf("dsn: %w", err)
	}
	r.database, r.release, err = databases.Acquire(settings, func() (*database, error) {
		return newDatabase(kind, settings)
	})
	if err != nil {
		return fmt.Errorf("dsn: %w", err)
	}

	identity, err := json.Marshal([]string{"sql", r.Driver, r.database.source.describe(), r.Query})
	if err != nil {
		return fmt.Errorf("describing the database: %w", err)
	}
	r.identity = string(identity)
	return nil
}

// Validate reports every pool setting that makes no sense. It only reads.
func (r *Resolver) Validate() error {
	var errs []error
	if r.MaxOpenConns < 0 || r.MaxOpenConns > maxMaxOpenConns {
		errs = append(errs, fmt.Errorf("max_open_conns: must be from 1 to %d, or left out for %d", maxMaxOpenConns, defaultMaxOpenConns))
	}
	if r.MaxIdleConns < 0 || r.MaxIdleConns > r.settings().MaxOpenConns {
		errs = append(errs, errors.New("max_idle_conns: must be from 1 to max_open_conns, or left out for as many"))
	}
	if r.ConnMaxLifetime < 0 {
		errs = append(errs, errors.New("conn_max_lifetime: must be positive, or left out for 30m"))
	}
	if r.ConnMaxIdleTime < 0 {
		errs = append(errs, errors.New("conn_max_idle_time: must be positive, or left out for 5m"))
	}
	return errors.Join(errs...)
}

// Cleanup gives back the share of the pool that Provision took, if it got that
// far. The resolver goes on to answer requests that are still being served.
func (r *Resolver) Cleanup() error {
	if r.release == nil {
		return nil
	}
	return r.release()
}

// Identity implements member.Resolver.
func (r *Resolver) Identity() string { return r.identity }

// TellsIssuers implements [member.IssuerTeller]: a query with `:issuer` does.
func (r *Resolver) TellsIssuers() bool { return slices.Contains(r.statement.params, "issuer") }

// Resolve implements member.Resolver. The text of its errors holds neither
// secrets of the configuration nor values of the query or of the row.
func (r *Resolver) Resolve(ctx context.Context, q member.Query) (*member.Member, error) {
	return r.database.ask(ctx, r.statement, q)
}

// kind returns what is peculiar to the configured driver.
func (r *Resolver) kind() (kind, error) {
	switch r.Driver {
	case "postgres":
		return postgresKind, nil
	case "sqlite":
		return sqliteKind, nil
	case "":
		return kind{}, errors.New("driver: none is given; use postgres or sqlite")
	default:
		return kind{}, fmt.Errorf("driver: %q is not known; use postgres or sqlite", r.Driver)
	}
}

// settings returns the settings of the pool, defaults applied, without DSN.
func (r *Resolver) settings() settings {
	s := settings{
		Driver:          r.Driver,
		MaxOpenConns:    r.MaxOpenConns,
		MaxIdleConns:    r.MaxIdleConns,
		ConnMaxLifetime: time.Duration(r.ConnMaxLifetime),
		ConnMaxIdleTime: time.Duration(r.ConnMaxIdleTime),
	}
	if s.MaxOpenConns == 0 {
		s.MaxOpenConns = defaultMaxOpenConns
	}
	if s.MaxIdleConns == 0 {
		s.MaxIdleConns = s.MaxOpenConns
	}
	if s.ConnMaxLifetime == 0 {
		s.ConnMaxLifetime = defaultConnMaxLifetime
	}
	if s.ConnMaxIdleTime == 0 {
		s.ConnMaxIdleTime = defaultConnMaxIdleTime
	}
	return s
}

// secretPlaceholder matches the placeholders a DSN is likely to be made of.
var secretPlaceholder = regexp.MustCompile(`\{((?:env|file)\.[^{}]+)\}`)

// expandDSN expands the global placeholders of a DSN. The replacer's own error
// quotes whatever stands between braces, which may be part of a password, so
// only what is plainly a placeholder is named.
func expandDSN(dsn string) (string, error) {
	if dsn == "" {
		return "", errors.New("none is given; add one, best as a placeholder such as {env.MEMBERS_DSN}")
	}
	repl := caddy.NewReplacer()
	expanded, err := repl.ReplaceOrErr(dsn, true, true)
	if err == nil {
		return expanded, nil
	}
	for _, match := range secretPlaceholder.FindAllStringSubmatch(dsn, -1) {
		if value, known := repl.GetString(match[1]); !known || value == "" {
			return "", fmt.Errorf("the placeholder {%s} is empty; set what it names for Caddy's process", match[1])
		}
	}
	return "", errors.New(`it holds a placeholder that is not known; use {env.NAME} or {file./path}, and write \{ for a brace that begins none`)
}

// Interface guards
var (
	_ member.Resolver       = (*Resolver)(nil)
	_ caddy.Provisioner     = (*Resolver)(nil)
	_ caddy.Validator       = (*Resolver)(nil)
	_ caddy.CleanerUpper    = (*Resolver)(nil)
	_ caddyfile.Unmarshaler = (*Resolver)(nil)
)

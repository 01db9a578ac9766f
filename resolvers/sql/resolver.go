// Package sqlresolver finds members with a query to the application's own
// database.
package sqlresolver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

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

// Resolver finds members in PostgreSQL, MySQL, MariaDB or SQLite.
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
// become lists. A database that has no type for lists, such as SQLite or MariaDB, returns
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
// `default_transaction_read_only`, MySQL's `set session transaction read only`,
// SQLite's files are opened with `mode=ro`.
type Resolver struct {
	// The kind of database: `postgres`, `mysql` (MariaDB, too) or `sqlite`. Required.
	Driver string `json:"driver,omitempty"`

	// Where the database is. Global placeholders such as `{env.MEMBERS_DSN}`
	// or `{file./run/secrets/members_dsn}` are expanded when the configuration
	// is loaded. `{tenant}` stands for the tenant, if each has a database of its
	// own; see `schema` for what follows. Required.
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
	// For `mysql` as go-sql-driver has it, `user:password@tcp(host:3306)/app?tls=true`;
	// besides its parameters there are `ssl-ca`, `ssl-cert` and `ssl-key`, the
	// paths of PEM files. The session's `sql_mode` and `time_zone` (UTC) are set
	// by the resolver.
	//
	// For `sqlite` the path of an existing file, or a `file:` URI with no
	// parameters but `mode=ro` and `immutable=1`. A database in WAL mode that
	// no one else has open needs the file's directory to be writable for
	// Caddy's user.
	DSN string `json:"dsn,omitempty"`

	// The query, a single SELECT (or WITH, VALUES, TABLE). It is given the
	// parameters `:kc_id`, `:tenant` and `:issuer`, the first two of which it
	// must use, and `:claim.<path>` for what else the token says, such as
	// `:claim.email`, `:claim.realm_access.roles` or
	// `:claim."resource_access.my-app.roles"`. A claim that is not there is
	// NULL, a list is `text[]` in PostgreSQL and a JSON array as text elsewhere,
	// everything else is text. They are always bound, never put into the text.
	// Placeholders are not expanded. Required.
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

	// The channel on which a PostgreSQL database notifies of changed members
	// (LISTEN), so that they are looked up again at once. One connection per
	// node and database listens; when it was interrupted, everything is flushed.
	// deploy/postgres/notify.sql has triggers that notify. Default: none.
	InvalidateOnNotify string `json:"invalidate_on_notify,omitempty"`

	// Where to listen, if not at `dsn`: LISTEN needs a session of its own on the
	// primary, which neither PgBouncer's transaction pooling nor a standby
	// gives. Placeholders as in `dsn`.
	ListenDSN string `json:"listen_dsn,omitempty"`

	// The name of each tenant's schema (PostgreSQL), such as `tenant_{tenant}`,
	// or a search path that begins with it, such as `tenant_{tenant}, public`.
	// As with `{tenant}` in `dsn`, each tenant gets a pool of its own, `:tenant`
	// need not be used, and a tenant whose schema does not exist has no members.
	// The row's tenant comes from the database still: select `current_schema()`.
	Schema string `json:"schema,omitempty"`

	// How many tenants' databases or schemas to keep connections to, with
	// `{tenant}`. Beyond, those not used for longest are closed. Default: 100.
	MaxTenants int `json:"max_tenants,omitempty"`

	// A second query, for lists: roles, groups, permissions. It is put once
	// after the first has found an active member, and may use `:member_id` (what
	// the first selects as `id`) besides the parameters of that. Each of its
	// columns becomes a list of what stands in it, in all rows, each value once;
	// NULL is left out, arrays are taken apart. Default: none.
	Profile string `json:"profile,omitempty"`

	// A statement that creates the member of a user whom the query does not find:
	// one INSERT, or a call of a function that does it, with the parameters of
	// the query. It runs at most once at a time for a user, in a transaction with
	// the query before and after it, and has to say itself who may become a
	// member of what: without a condition it is every user of the realm, in every
	// tenant that a request may name. Default: none; unknown users stay unknown.
	OnUnknown string `json:"on_unknown,omitempty"`

	// Where `on_unknown` runs, as a user who may write, if not at `dsn`.
	WriteDSN string `json:"write_dsn,omitempty"`

	log       *zap.Logger
	plan      plan
	place     place
	writes    place // none without on_unknown
	listening listening
	listener  *listener // nil without invalidate_on_notify
	releases  []func() error
	identity  string
}

// CaddyModule returns the Caddy module information.
func (Resolver) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  member.Namespace + ".sql",
		New: func() caddy.Module { return new(Resolver) },
	}
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
	if r.MaxTenants < 0 || r.MaxTenants > maxMaxTenants {
		errs = append(errs, fmt.Errorf("max_tenants: must be from 1 to %d, or left out for %d", maxMaxTenants, defaultMaxTenants))
	}
	if r.ConnMaxLifetime < 0 {
		errs = append(errs, errors.New("conn_max_lifetime: must be positive, or left out for 30m"))
	}
	if r.ConnMaxIdleTime < 0 {
		errs = append(errs, errors.New("conn_max_idle_time: must be positive, or left out for 5m"))
	}
	return errors.Join(errs...)
}

// Cleanup gives back the shares of what Provision took, as far as it got. The
// resolver goes on to answer requests that are still being served.
func (r *Resolver) Cleanup() error {
	var errs []error
	for _, release := range r.releases {
		errs = append(errs, release())
	}
	return errors.Join(errs...)
}

// Identity implements member.Resolver.
func (r *Resolver) Identity() string { return r.identity }

// TellsIssuers implements [member.IssuerTeller]: a query with `:issuer` does.
func (r *Resolver) TellsIssuers() bool { return slices.Contains(r.plan.find.params, "issuer") }

// Claims implements [member.ClaimReader].
func (r *Resolver) Claims() []string { return claims(r.plan.find, r.plan.profile, r.plan.create) }

// Resolve implements member.Resolver. The text of its errors holds neither
// secrets of the configuration nor values of the query or of the row.
func (r *Resolver) Resolve(ctx context.Context, q member.Query) (*member.Member, error) {
	db, err := r.place.of(q.Tenant)
	if err != nil {
		return nil, err
	}
	m, err := db.ask(ctx, r.plan.find, r.plan.profile, q)
	r.place.learn(q.Tenant, db, err)
	switch {
	case r.plan.create.text == "" || !errors.Is(err, member.ErrUnknown), errors.Is(err, errNoDatabase), errors.Is(err, errImpossible):
		return m, err
	}
	if db, err = r.writes.of(q.Tenant); err != nil {
		return nil, err
	}
	return db.createMember(ctx, r.plan, q)
}

// Interface guards
var (
	_ member.Resolver       = (*Resolver)(nil)
	_ member.IssuerTeller   = (*Resolver)(nil)
	_ member.ClaimReader    = (*Resolver)(nil)
	_ member.Watcher        = (*Resolver)(nil)
	_ member.WatchTeller    = (*Resolver)(nil)
	_ member.Checker        = (*Resolver)(nil)
	_ caddy.Provisioner     = (*Resolver)(nil)
	_ caddy.Validator       = (*Resolver)(nil)
	_ caddy.CleanerUpper    = (*Resolver)(nil)
	_ caddyfile.Unmarshaler = (*Resolver)(nil)
)

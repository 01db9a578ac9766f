package sqlresolver

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"
)

var postgresKind = kind{
	lexis: lexis{
		placeholder:    "$",
		lineEnds:       "\n\r",
		nestedComments: true,
		escapeStrings:  true,
		dollarQuotes:   true,
		casts:          true,
	},
	open: openPostgres,
}

// applicationName is what the database's administrator sees of us, unless the
// DSN says something else.
const applicationName = "caddy-keycloak-cache-auth"

// postgres is a PostgreSQL database, reached through pgx.
type postgres struct {
	address
	schemas []string // the search path, if it is not the DSN's
	config  *pgx.ConnConfig
}

func openPostgres(a address) (source, error) {
	p := &postgres{address: a}
	for name := range strings.SplitSeq(a.Schema, ",") {
		if name = strings.TrimSpace(name); name != "" {
			p.schemas = append(p.schemas, name)
		}
	}
	var err error
	if p.config, err = p.parse(); err != nil {
		return nil, err
	}
	// the server cuts longer names short, and they might become another tenant's
	for _, name := range append([]string{p.config.Database, p.config.User}, p.schemas...) {
		if len(name) > maxIdentifier {
			return nil, errLongName
		}
	}
	return p, nil
}

// maxIdentifier is how long a name may be in PostgreSQL, in bytes.
const maxIdentifier = 63

var errLongName = fmt.Errorf("a name of database, user or schema has more than %d bytes", maxIdentifier)

// parse reads the DSN, and adds what the address has besides.
func (p *postgres) parse() (*pgx.ConnConfig, error) {
	config, err := parsePostgres(p.DSN)
	if err != nil {
		return nil, err
	}
	if p.Write {
		delete(config.RuntimeParams, "default_transaction_read_only")
	}
	if len(p.schemas) > 0 {
		quoted := make([]string, len(p.schemas))
		for i, name := range p.schemas {
			quoted[i] = pgx.Identifier{name}.Sanitize()
		}
		config.RuntimeParams["search_path"] = strings.Join(quoted, ", ")
	}
	return config, nil
}

// inSchema makes sure that a session looks into the tenant's schema: PostgreSQL
// passes over one that does not exist, and a pooler may drop the search path.
func (p *postgres) inSchema(ctx context.Context, conn *pgx.Conn) error {
	if len(p.schemas) == 0 {
		return nil
	}
	var exists, first bool
	err := conn.QueryRow(ctx, "select exists (select from pg_catalog.pg_namespace where nspname = $1), coalesce(current_schema() = $1, false)",
		pgx.QueryExecModeExec, p.schemas[0]).Scan(&exists, &first)
	switch {
	case err == nil && !exists:
		err = errNoDatabase
	case err == nil && !first:
		err = ourErrorf("the schema of the tenant is there, but not looked into; grant usage on it, and have no pooler drop search_path")
	}
	if err != nil {
		_ = conn.Close(ctx) // the caller does not
	}
	return err
}

// errPostgresDSN stands for whatever pgx has to say, because that quotes the
// DSN and hides the password only where it recognises it.
var errPostgresDSN = errors.New("it is not a PostgreSQL URL or list of name=value that can be used; " +
	"check that what is special in a password is percent-encoded (URL) or quoted, and that the files it names can be read")

// parsePostgres reads a DSN, and the environment and files it refers to.
func parsePostgres(dsn string) (*pgx.ConnConfig, error) {
	if strings.HasPrefix(dsn, "postgres") && strings.Contains(dsn, "://") && strings.Count(dsn, "@") > 1 {
		// the part of the password after the first @ would be taken for the host
		return nil, errors.New("it has more than one @; write those of user, password and parameters as %40")
	}
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, errPostgresDSN
	}
	for _, host := range addresses(config) {
		if strings.Contains(host, "@") || strings.Contains(config.Database, "@") {
			return nil, errPostgresDSN // a password that was not encoded
		}
	}
	config.RuntimeParams["default_transaction_read_only"] = "on"
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = applicationName
	}
	return config, nil
}

func (p *postgres) connector() driver.Connector {
	return stdlib.GetConnector(*p.config,
		// anew, because the password file or a certificate may have changed
		stdlib.OptionBeforeConnect(func(_ context.Context, config *pgx.ConnConfig) error {
			fresh, err := p.parse()
			if err != nil {
				return ourErrorf("dsn: %w", err)
			}
			*config = *fresh
			return nil
		}),
		stdlib.OptionAfterConnect(p.inSchema),
		stdlib.OptionShouldPing(func(ctx context.Context, params stdlib.ShouldPingParams) bool {
			return isAgain(ctx) || params.IdleDuration > time.Second
		}),
	)
}

// describe names hosts, database and user, and whatever else the DSN sets for
// a session (search_path, say), for all of it decides what a query finds.
func (p *postgres) describe() string {
	session := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(p.config.RuntimeParams)) {
		if name != "application_name" {
			fmt.Fprintf(session, "%q=%q\n", name, p.config.RuntimeParams[name])
		}
	}
	text, _ := json.Marshal(map[string]any{ // strings cannot fail
		"hosts": addresses(p.config), "database": p.config.Database, "user": p.config.User,
		"session": hex.EncodeToString(session.Sum(nil)[:16]),
	})
	return string(text)
}

func (p *postgres) hosts() []string {
	names := []string{p.config.Host}
	for _, other := range p.config.Fallbacks {
		names = append(names, other.Host)
	}
	return names
}

// addresses lists the addresses that are tried, each once: with sslmode=prefer
// each is there twice, with TLS and without.
func addresses(config *pgx.ConnConfig) []string {
	list := []string{net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))}
	for _, other := range config.Fallbacks {
		address := net.JoinHostPort(other.Host, strconv.Itoa(int(other.Port)))
		if !slices.Contains(list, address) {
			list = append(list, address)
		}
	}
	return list
}

func (p *postgres) types() types { return types{array: splitArray} }

// splitArray reads an array as PostgreSQL writes it as text.
func splitArray(text string) ([]string, error) {
	var array pgtype.Array[pgtype.Text]
	if err := pgtype.NewMap().Scan(pgtype.TextArrayOID, pgtype.TextFormatCode, []byte(text), &array); err != nil {
		return nil, errors.New("is an array that cannot be read; select it as text[]")
	}
	if len(array.Dims) > 1 {
		return nil, errors.New("is an array of arrays; select one with a single dimension")
	}
	items := make([]string, len(array.Elements))
	for i, element := range array.Elements {
		if !element.Valid {
			return nil, errors.New("is an array that holds NULL; select array_remove(…, null)")
		}
		items[i] = element.String
	}
	return items, nil
}

func (p *postgres) secrets() []string { return []string{p.config.Password} }

// explain shows messages of those classes that tell of the query, the schema
// and the server, and of the others only the code: they quote values. Classes
// are those of https://www.postgresql.org/docs/current/errcodes-appendix.html.
func (p *postgres) explain(err error) string {
	prefix := ""
	if connecting, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		prefix = "connecting failed: "
		if _, ok := errors.AsType[*pgconn.PgError](err); !ok {
			return connecting.Error()
		}
	}
	if failure, ok := errors.AsType[*pgconn.PgError](err); ok {
		text := prefix + "SQLSTATE " + failure.Code
		switch failure.Code[:min(2, len(failure.Code))] {
		case "08", "0A", "25", "28", "3D", "3F", "40", "42", "53", "54", "55", "57", "58", "F0", "XX":
			return text + ": " + failure.Message
		case "22":
			return text + ": a value does not fit the type it is compared with or converted to"
		default:
			return text
		}
	}
	if isNetwork(err) {
		return "the connection failed: " + err.Error()
	}
	return ""
}

// stale names the ways in which a connection ends that was good before, and
// what a changed table does to a prepared statement.
func (p *postgres) stale(err error) bool {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return false
	}
	if failure, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch failure.Code {
		case "57P01", "57P02", // admin_shutdown, crash_shutdown
			"0A000", // feature_not_supported: cached plan must not change result type
			"26000": // invalid_sql_statement_name: a pooler changed the server
			return true
		}
		return strings.HasPrefix(failure.Code, "08")
	}
	return isNetwork(err)
}

// isNetwork tells whether a connection broke, other than by a time-out.
func isNetwork(err error) bool {
	if failure, ok := errors.AsType[net.Error](err); ok {
		return !failure.Timeout()
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, pgconn.ErrConnClosed) || errors.Is(err, driver.ErrBadConn)
}

// impossible finds out whether a bound value is no uuid or integer although
// its column is: Keycloak's ids of federated users are no uuids, and a client
// may name any tenant. Such a user or tenant certainly is not in the table.
func (p *postgres) impossible(ctx context.Context, db *sql.DB, text string, args []any, err error) bool {
	failure, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || failure.Code != "22P02" && failure.Code != "22003" { // invalid_text_representation, out_of_range
		return false
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }() // gives it back to the pool
	var oids []uint32
	err = conn.Raw(func(driverConn any) error {
		pg, ok := driverConn.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("connection is a %T", driverConn)
		}
		description, err := pg.Conn().PgConn().Prepare(ctx, "", text, nil)
		if err != nil {
			return err
		}
		oids = description.ParamOIDs
		return nil
	})
	if err != nil || len(oids) != len(args) {
		return false
	}
	for i, oid := range oids {
		if value, ok := args[i].(string); ok && !fits(value, oid) {
			return true
		}
	}
	return false
}

// fits tells whether a text may be a value of a type; true if not known.
func fits(text string, oid uint32) bool {
	var bits int
	switch oid {
	case pgtype.UUIDOID:
		digits := strings.NewReplacer("-", "", "{", "", "}", "").Replace(text)
		_, err := hex.DecodeString(digits)
		return err == nil && len(digits) == 32
	case pgtype.Int2OID:
		bits = 16
	case pgtype.Int4OID:
		bits = 32
	case pgtype.Int8OID:
		bits = 64
	default:
		return true
	}
	_, err := strconv.ParseInt(strings.TrimSpace(text), 10, bits)
	return err == nil
}

func (p *postgres) prepares() bool { return false }

// absent tells of invalid_catalog_name.
func (p *postgres) absent(err error) bool {
	failure, ok := errors.AsType[*pgconn.PgError](err)
	return ok && failure.Code == "3D000"
}

// duplicate tells of unique_violation.
func (p *postgres) duplicate(err error) bool {
	failure, ok := errors.AsType[*pgconn.PgError](err)
	return ok && failure.Code == "23505"
}

func (p *postgres) lock() (take, giveBack string) {
	return "select pg_advisory_xact_lock($1)::text", ""
}

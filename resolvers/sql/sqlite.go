package sqlresolver

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

var sqliteKind = kind{
	lexis: lexis{
		placeholder:   "?",
		lineEnds:      "\n",
		backtickNames: true,
		bracketNames:  true,
		ownParams:     "?@$#",
	},
	open: openSQLite,
}

// busyTimeout is how many milliseconds a query waits for a writer that keeps
// the database locked. The time-out of the look-up ends the wait, too.
const busyTimeout = "2000"

// sqliteFile is an SQLite database.
type sqliteFile struct {
	path       string
	parameters string // of the URI
	conn       driver.Connector
}

func openSQLite(a address) (source, error) {
	file, err := parseSQLite(a.DSN)
	if err != nil {
		return nil, err
	}
	// An own URI, so that the driver's parameters, some of which write, are
	// ours alone. mode=ro also keeps a misspelt path from becoming a database.
	mode := "?mode=ro"
	if a.Write {
		mode = "?mode=rw&_txlock=immediate"
	}
	uri := (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: file.path}).EscapedPath()}).String() +
		mode + file.parameters + "&_pragma=busy_timeout(" + busyTimeout + ")"
	if file.conn, err = sqlite.NewConnector(uri); err != nil {
		return nil, errSQLiteDSN
	}
	return file, nil
}

var errSQLiteDSN = errors.New("it is neither the path of an SQLite file nor a file: URI of one with at most mode=ro and immutable=1")

// parseSQLite reads a path or URI.
func parseSQLite(dsn string) (*sqliteFile, error) {
	if !strings.HasPrefix(dsn, "file:") {
		if strings.Contains(dsn, "://") || strings.ContainsRune(dsn, 0) {
			return nil, errSQLiteDSN
		}
		return newSQLiteFile(dsn, "")
	}
	uri, err := url.Parse(dsn)
	if err != nil || uri.Host != "" && uri.Host != "localhost" || uri.Fragment != "" {
		return nil, errSQLiteDSN
	}
	path := uri.Path
	if uri.Opaque != "" { // file:relative/path
		if path, err = url.PathUnescape(uri.Opaque); err != nil {
			return nil, errSQLiteDSN
		}
	}
	parameters := ""
	query, err := url.ParseQuery(uri.RawQuery)
	if err != nil {
		return nil, errSQLiteDSN
	}
	for name, values := range query {
		switch {
		case len(values) == 1 && name == "mode" && values[0] == "ro":
		case len(values) == 1 && name == "immutable" && values[0] == "1":
			parameters = "&immutable=1"
		default:
			return nil, errSQLiteDSN
		}
	}
	return newSQLiteFile(path, parameters)
}

func newSQLiteFile(path, parameters string) (*sqliteFile, error) {
	if path == "" || path == ":memory:" {
		return nil, errors.New("a database in memory would always be empty; name a file")
	}
	return &sqliteFile{path: filepath.Clean(path), parameters: parameters}, nil
}

func (f *sqliteFile) connector() driver.Connector { return f.conn }

func (f *sqliteFile) describe() string { return f.path }

func (f *sqliteFile) types() types { return types{} }

func (f *sqliteFile) secrets() []string { return nil }

func (f *sqliteFile) explain(err error) string {
	failure, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return ""
	}
	switch failure.Code() & 0xff { // the rest of it says more than is needed
	case sqlite3.SQLITE_CANTOPEN:
		return fmt.Sprintf("the SQLite file %s cannot be opened; it must exist, be readable for Caddy's user and, in WAL mode, lie in a directory that is writable", f.path)
	case sqlite3.SQLITE_NOTADB:
		return fmt.Sprintf("the file %s is not an SQLite database", f.path)
	}
	return failure.Error()
}

// stale is never true: there is no connection that could break, and SQLite
// prepares a statement anew where the schema has changed.
func (f *sqliteFile) stale(error) bool { return false }

// impossible is never true: SQLite compares values of any types.
func (f *sqliteFile) impossible(context.Context, *sql.DB, string, []any, error) bool { return false }

func (f *sqliteFile) prepares() bool { return false }

func (f *sqliteFile) hosts() []string { return nil }

// absent tells of a file that is not there.
func (f *sqliteFile) absent(err error) bool {
	failure, ok := errors.AsType[*sqlite.Error](err)
	if !ok || failure.Code()&0xff != sqlite3.SQLITE_CANTOPEN {
		return false
	}
	_, err = os.Stat(f.path)
	return errors.Is(err, os.ErrNotExist)
}

func (f *sqliteFile) duplicate(err error) bool {
	failure, ok := errors.AsType[*sqlite.Error](err)
	return ok && (failure.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || failure.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

// lock is nothing: a transaction that may write begins as an immediate one.
func (f *sqliteFile) lock() (take, giveBack string) { return "", "" }

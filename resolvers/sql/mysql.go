package sqlresolver

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// mysqlKind is MySQL and MariaDB. What is a string and what a comment is said
// at https://dev.mysql.com/doc/refman/8.4/en/lexical-structure.html; it also
// depends on the session's sql_mode, which is therefore ours.
var mysqlKind = kind{
	lexis: lexis{
		placeholder:   "?",
		unnumbered:    true,
		lineEnds:      "\n",
		backtickNames: true,
		backslashes:   true,
		hashComments:  true,
		ownParams:     "?",
	},
	open: openMySQL,
}

// mysqlSession is what each session begins with. Times are UTC, as they are
// read, and quotes mean what the scanner takes them to mean.
const mysqlSession = "set session sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO', time_zone = '+00:00'"

// mysqlServer is a MySQL or MariaDB database.
type mysqlServer struct {
	config *mysql.Config
	tls    mysqlTLS
	write  bool
}

// mysqlTLS names the files of a private CA and of a client's certificate.
type mysqlTLS struct{ ca, cert, key string }

// errMySQLDSN stands for what the driver has to say, which may quote the DSN.
var errMySQLDSN = errors.New("it is not user:password@tcp(host:3306)/database or user:password@unix(/path)/database with " +
	"parameters such as ?tls=true that are known; write what is special in a parameter percent-encoded")

func openMySQL(a address) (source, error) {
	if strings.Contains(a.DSN, "://") && strings.Contains(strings.ToLower(a.DSN), "sql://") {
		return nil, errors.New("it is a URL; for MySQL and MariaDB write user:password@tcp(host:3306)/database?tls=true")
	}
	if strings.Contains(a.DSN, "strict=") {
		return nil, errMySQLDSN // the driver panics
	}
	config, err := mysql.ParseDSN(filePath.ReplaceAllStringFunc(a.DSN, func(parameter string) string {
		return strings.ReplaceAll(parameter, "/", "%2F") // the driver takes the last one for what is before the database
	}))
	if err != nil {
		return nil, errMySQLDSN
	}
	s := &mysqlServer{config: config, write: a.Write}
	if config.DBName == "" {
		return nil, errors.New("it names no database; write …@tcp(host:3306)/database")
	}
	files := map[string]*string{"ssl-ca": &s.tls.ca, "ssl-cert": &s.tls.cert, "ssl-key": &s.tls.key}
	for name, path := range files {
		*path = config.Params[name]
		delete(config.Params, name)
	}
	config.MultiStatements, config.AllowAllFiles, config.InterpolateParams = false, false, false
	config.ParseTime, config.Loc = true, time.UTC
	config.Logger = &mysql.NopLogger{} // errors are returned, too
	if config.AllowOldPasswords {
		return nil, errors.New("allowOldPasswords sends what is as good as the password; give the user a newer kind of password")
	}
	if s.tls != (mysqlTLS{}) {
		if config.TLS, err = s.tls.config(config); err != nil {
			return nil, err
		}
		config.AllowFallbackToPlaintext = false
	}
	if config.AllowCleartextPasswords && (config.TLS == nil || config.AllowFallbackToPlaintext || config.TLS.InsecureSkipVerify) {
		return nil, errors.New("allowCleartextPasswords would show the password to the network; add tls=true")
	}
	return s, nil
}

// filePath matches the parameters that are paths.
var filePath = regexp.MustCompile(`[?&]ssl-(?:ca|cert|key)=[^&]*`)

// config reads the files.
func (t mysqlTLS) config(c *mysql.Config) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: (&mysqlServer{config: c}).hosts()[0]}
	if t.ca != "" {
		pem, err := os.ReadFile(t.ca)
		if err != nil {
			return nil, errors.New("the file of ssl-ca cannot be read")
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("the file of ssl-ca holds no certificate in PEM")
		}
	}
	if t.cert != "" || t.key != "" {
		pair, err := tls.LoadX509KeyPair(t.cert, t.key)
		if err != nil {
			return nil, errors.New("the files of ssl-cert and ssl-key cannot be read, or are not a certificate in PEM and its key")
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func (s *mysqlServer) connector() driver.Connector {
	config := s.config.Clone()
	if s.tls != (mysqlTLS{}) {
		// anew for each connection, because a certificate may have changed; it cannot fail for an option of this kind
		_ = config.Apply(mysql.BeforeConnect(func(_ context.Context, c *mysql.Config) error {
			fresh, err := s.tls.config(c)
			if err != nil {
				return ourErrorf("dsn: %w", err)
			}
			c.TLS = fresh
			return nil
		}))
	}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return failing{err} // impossible: the DSN was parsed
	}
	session := []string{mysqlSession}
	if !s.write {
		session = append(session, "set session transaction read only")
	}
	return mysqlConnector{connector, session}
}

// mysqlConnector prepares each session before it is used.
type mysqlConnector struct {
	driver.Connector
	session []string
}

// Connect implements [driver.Connector].
func (c mysqlConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	execer, ok := conn.(driver.ExecerContext)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("connection is a %T", conn)
	}
	for _, statement := range c.session {
		if _, err := execer.ExecContext(ctx, statement, nil); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

// failing is a connector that cannot connect.
type failing struct{ err error }

func (f failing) Connect(context.Context) (driver.Conn, error) { return nil, f.err }
func (f failing) Driver() driver.Driver                        { return mysql.MySQLDriver{} }

// describe names the server, the database and the user, and whatever else the
// DSN sets for a session.
func (s *mysqlServer) describe() string {
	session := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(s.config.Params)) {
		fmt.Fprintf(session, "%q=%q\n", name, s.config.Params[name])
	}
	text, _ := json.Marshal(map[string]any{ // strings cannot fail
		"host": s.config.Net + ":" + s.config.Addr, "database": s.config.DBName, "user": s.config.User,
		"session": hex.EncodeToString(session.Sum(nil)[:16]),
	})
	return string(text)
}

func (s *mysqlServer) hosts() []string {
	host, _, err := net.SplitHostPort(s.config.Addr)
	if err != nil {
		host = s.config.Addr
	}
	return []string{host}
}

func (s *mysqlServer) types() types { return types{normal: mysqlNormal} }

// mysqlNormal makes of what the driver returns what other drivers do: text as a
// string, numbers as int64 and float64.
func mysqlNormal(c column, v any) any {
	switch v := v.(type) {
	case []byte:
		switch c.typ {
		case "BINARY", "VARBINARY", "TINYBLOB", "BLOB", "MEDIUMBLOB", "LONGBLOB", "GEOMETRY", "VECTOR":
			return v
		case "BIT":
			if len(v) <= 8 {
				var n uint64
				for _, b := range v {
					n = n<<8 | uint64(b)
				}
				return mysqlNormal(c, n)
			}
		}
		return string(v)
	case uint64:
		if v <= math.MaxInt64 {
			return int64(v)
		}
		return strconv.FormatUint(v, 10)
	case float32:
		// by way of text, or 0.1 would become 0.10000000149011612
		n, _ := strconv.ParseFloat(strconv.FormatFloat(float64(v), 'g', -1, 32), 64)
		return n
	case time.Time:
		if v.IsZero() {
			return nil // 0000-00-00, which is no day
		}
	}
	return v
}

func (s *mysqlServer) secrets() []string { return []string{s.config.Passwd} }

// mysqlTelling are the errors whose messages tell of the query, the schema and
// the server. Others may quote values. Numbers are those of
// https://mariadb.com/kb/en/mariadb-error-codes/, which MySQL shares.
var mysqlTelling = []uint16{
	1040, 1044, 1045, 1046, 1049, 1051, 1052, 1053, 1054, 1064, 1109, 1129, 1130, 1142, 1143, 1146, 1158, 1159, 1160, 1161,
	1203, 1205, 1213, 1222, 1226, 1227, 1235, 1251, 1253, 1267, 1270, 1271, 1290, 1305, 1317, 1356, 1370, 1615, 1792, 1836,
	1927, 1969, 3024, 3118, 3159, 3948, 4031, 4151,
}

func (s *mysqlServer) explain(err error) string {
	if failure, ok := errors.AsType[*mysql.MySQLError](err); ok {
		text := "error " + strconv.Itoa(int(failure.Number))
		if slices.Contains(mysqlTelling, failure.Number) {
			return text + ": " + failure.Message
		}
		return text
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return "the connection failed: " + err.Error()
	}
	if s.stale(err) {
		return "the connection failed"
	}
	if certificate, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "connecting failed: " + certificate.Error()
	}
	if errors.Is(err, mysql.ErrNoTLS) {
		return "connecting failed: the server offers no TLS"
	}
	return ""
}

// stale names the ways in which a connection ends that was good before, and
// in which a prepared statement ceases to be.
func (s *mysqlServer) stale(err error) bool {
	if failure, ok := errors.AsType[*mysql.MySQLError](err); ok {
		switch failure.Number {
		case 1053, 1243, 1615, 1927, 4031: // shutdown, unknown statement, re-prepare, killed, idle for too long
			return true
		}
		return false
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		return false
	}
	return isNetwork(err) || errors.Is(err, mysql.ErrInvalidConn)
}

// impossible is never true: MySQL converts what it compares, so that "7a" is 7
// to it; the row's own tenant and user are compared afterwards.
func (s *mysqlServer) impossible(context.Context, *sql.DB, string, []any, error) bool { return false }

func (s *mysqlServer) prepares() bool { return true }

// absent tells of ER_BAD_DB_ERROR.
func (s *mysqlServer) absent(err error) bool { return isMySQL(err, 1049) }

// duplicate tells of ER_DUP_ENTRY.
func (s *mysqlServer) duplicate(err error) bool { return isMySQL(err, 1062) }

func isMySQL(err error, number uint16) bool {
	failure, ok := errors.AsType[*mysql.MySQLError](err)
	return ok && failure.Number == number
}

// lock is the session's: it must be given back before the connection is.
func (s *mysqlServer) lock() (take, giveBack string) {
	return "select get_lock(concat('keycloak_cache_auth ', ?), 10)", "do release_lock(concat('keycloak_cache_auth ', ?))"
}

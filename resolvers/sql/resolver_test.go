package sqlresolver

import (
	"context"
	"encoding/json"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

const byKey = " where kc_id = :kc_id and tenant = :tenant"

// load takes a configuration through Caddy's loader and unloads it when the
// test ends.
func load(t testing.TB, config map[string]any) (*Resolver, error) {
	t.Helper()
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	module, err := ctx.LoadModuleByID(member.Namespace+".sql", raw)
	if err != nil {
		return nil, err
	}
	return module.(*Resolver), nil
}

func mustLoad(t testing.TB, config map[string]any) *Resolver {
	t.Helper()
	r, err := load(t, config)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// parse reads a Caddyfile as the directive does for a guest.
func parse(t testing.TB, text string) (*Resolver, error) {
	t.Helper()
	tokens, err := caddyfile.Tokenize([]byte(text), "Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	d := caddyfile.NewDispenser(tokens)
	d.Next() // the word resolver
	d.Next()
	module, err := caddyfile.UnmarshalModule(d, member.Namespace+"."+d.Val())
	if err != nil {
		return nil, err
	}
	return module.(*Resolver), nil
}

func TestCaddyfileAndJSONAreTheSame(t *testing.T) {
	r, err := parse(t, `resolver sql {
		driver postgres
		dsn {env.MEMBERS_DSN}
		query "select kc_id, tenant, active, id from members where kc_id = :kc_id and tenant = :tenant"
		max_open_conns 20
		max_idle_conns 5
		conn_max_lifetime 1d
		conn_max_idle_time 90s
		invalidate_on_notify members_changed
		listen_dsn {env.LISTEN_DSN}
		schema tenant_{tenant}
		max_tenants 50
		profile "select role as roles from grants where member_id = :member_id"
		on_unknown "insert into members (kc_id, tenant) values (:kc_id, :tenant) on conflict do nothing"
		write_dsn {env.WRITE_DSN}
	}`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"driver":"postgres","dsn":"{env.MEMBERS_DSN}",` +
		`"query":"select kc_id, tenant, active, id from members where kc_id = :kc_id and tenant = :tenant",` +
		`"max_open_conns":20,"max_idle_conns":5,"conn_max_lifetime":86400000000000,"conn_max_idle_time":90000000000,` +
		`"invalidate_on_notify":"members_changed","listen_dsn":"{env.LISTEN_DSN}","schema":"tenant_{tenant}","max_tenants":50,` +
		`"profile":"select role as roles from grants where member_id = :member_id",` +
		`"on_unknown":"insert into members (kc_id, tenant) values (:kc_id, :tenant) on conflict do nothing","write_dsn":"{env.WRITE_DSN}"}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestCaddyfileErrorsNameLineAndRemedy(t *testing.T) {
	const secret = "hunter2secret"
	tests := map[string]struct {
		lines string
		want  []string
	}{
		"an argument after the name":    {"", []string{"Caddyfile:1", "takes no arguments"}},
		"an option of no resolver":      {"drivr postgres", []string{"Caddyfile:2", `"drivr"`, "driver, dsn, query"}},
		"an option that is misspelt":    {"invalidate_on_notifi members", []string{"Caddyfile:2", "invalidate_on_notifi"}},
		"a line that is no option":      {"postgres://u:" + secret + "@h/d", []string{"Caddyfile:2", "none of its options"}},
		"an unknown driver":             {"driver oracle", []string{"Caddyfile:2", `"oracle"`, "postgres, mysql (for MariaDB, too) or sqlite"}},
		"no driver":                     {"dsn x\nquery y", []string{"Caddyfile:4", "no driver", "add the line"}},
		"no dsn":                        {"driver sqlite\nquery y", []string{"no dsn", "add the line"}},
		"no query":                      {"driver sqlite\ndsn x", []string{"no query", "add the line"}},
		"an option without its value":   {"dsn", []string{"Caddyfile:2", "dsn has no value", "same line"}},
		"an option with an empty value": {`dsn ""`, []string{"Caddyfile:2", "dsn is empty"}},
		"an option with two values":     {"dsn password=" + secret + " host=h", []string{"Caddyfile:2", "dsn takes one value", "quotes"}},
		"an option given twice":         {"dsn " + secret + "\ndsn y", []string{"Caddyfile:3", "dsn is given twice"}},
		"a block where a value belongs": {"dsn {\n}", []string{"Caddyfile:2", "dsn has no value"}},
		"a block after a value":         {"dsn " + secret + " {\n}", []string{"Caddyfile:2", "none of its options"}},
		"a number that is none":         {"max_open_conns many", []string{"Caddyfile:2", "max_open_conns", "such as 10"}},
		"zero connections":              {"max_idle_conns 0", []string{"Caddyfile:2", "max_idle_conns", "from 1 up"}},
		"a duration without a unit":     {"conn_max_lifetime 30", []string{"Caddyfile:2", "conn_max_lifetime", "such as 30m"}},
		"a negative duration":           {"conn_max_idle_time -5m", []string{"Caddyfile:2", "conn_max_idle_time", "positive"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			text := "resolver sql {\n" + test.lines + "\n}"
			if test.lines == "" {
				text = "resolver sql postgres://u:" + secret + "@h/d {\n}"
			}
			_, err := parse(t, text)
			if err == nil {
				t.Fatal("accepted")
			}
			checkError(t, err, secret, test.want...)
		})
	}
}

// checkError tells whether an error holds what it should and no secret.
func checkError(t *testing.T, err error, secret string, want ...string) {
	t.Helper()
	for _, part := range want {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not hold %q", err, part)
		}
	}
	if secret != "" && strings.Contains(err.Error(), secret) {
		t.Errorf("%q holds the secret", err)
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	const secret = "hunter2secret"
	t.Setenv("KCA_TEST_EMPTY", "")
	t.Setenv("KCA_TEST_DSN", "postgres://u:"+secret+"@h:port/d")
	good := func(changes map[string]any) map[string]any {
		config := map[string]any{"driver": "postgres", "dsn": "host=127.0.0.1", "query": columns + byKey}
		maps.Copy(config, changes)
		return config
	}
	tests := map[string]struct {
		config map[string]any
		want   []string
	}{
		"no driver":                           {good(map[string]any{"driver": ""}), []string{"driver: none is given", "use postgres, mysql or sqlite"}},
		"an unknown driver":                   {good(map[string]any{"driver": "mariadb"}), []string{`driver: "mariadb"`, "use postgres, mysql (for MariaDB, too)"}},
		"an unknown option":                   {good(map[string]any{"profile": "select 1"}), []string{"profile"}},
		"no query":                            {good(map[string]any{"query": ""}), []string{"query: none is given"}},
		"a query that finds everybody":        {good(map[string]any{"query": columns}), []string{"query: ", ":kc_id"}},
		"no dsn":                              {good(map[string]any{"dsn": ""}), []string{"dsn: none is given", "{env.MEMBERS_DSN}"}},
		"a dsn whose variable is not set":     {good(map[string]any{"dsn": "postgres://u:" + secret + "@{env.KCA_TEST_EMPTY}/d"}), []string{"dsn: ", "{env.KCA_TEST_EMPTY} is empty"}},
		"a dsn with braces in the password":   {good(map[string]any{"dsn": "postgres://u:{" + secret + "}@h/d"}), []string{"dsn: ", `\{`}},
		"a dsn from the environment":          {good(map[string]any{"dsn": "{env.KCA_TEST_DSN}"}), []string{"dsn: it is not a PostgreSQL URL"}},
		"a PostgreSQL URL for SQLite":         {good(map[string]any{"driver": "sqlite", "dsn": "postgres://u:" + secret + "@h/d"}), []string{"dsn: ", "neither the path"}},
		"a password with an @":                {good(map[string]any{"dsn": "postgres://u:p@" + secret + "@h/d"}), []string{"more than one @", "%40"}},
		"a password with a slash":             {good(map[string]any{"dsn": "postgres://u:12/" + secret + "@h"}), []string{"dsn: ", "percent-encoded"}},
		"a password with a blank":             {good(map[string]any{"dsn": "host=h password=a " + secret}), []string{"dsn: ", "quoted"}},
		"a port that is none":                 {good(map[string]any{"dsn": "host=h password=" + secret + " port=x"}), []string{"dsn: "}},
		"a certificate that cannot be read":   {good(map[string]any{"dsn": "host=h password=" + secret + " sslmode=verify-full sslrootcert=/nowhere"}), []string{"files it names"}},
		"a URL for MySQL":                     {good(map[string]any{"driver": "mysql", "dsn": "mysql://u:" + secret + "@h/d"}), []string{"dsn: it is a URL", "@tcp(host:3306)"}},
		"a DSN of MySQL that is none":         {good(map[string]any{"driver": "mysql", "dsn": "u:" + secret + "@tcp(h:1"}), []string{"dsn: it is not user:password@tcp"}},
		"a DSN of MySQL without a database":   {good(map[string]any{"driver": "mysql", "dsn": "u:" + secret + "@tcp(h:1)/"}), []string{"dsn: it names no database"}},
		"a DSN of MySQL with a bad parameter": {good(map[string]any{"driver": "mysql", "dsn": "u:" + secret + "@tcp(h:1)/d?timeout=" + secret}), []string{"dsn: it is not user:password@tcp"}},
		"a DSN of MySQL that is strict":       {good(map[string]any{"driver": "mysql", "dsn": "u:" + secret + "@tcp(h:1)/d?strict=true"}), []string{"dsn: it is not user:password@tcp"}},
		"a password of MySQL in clear text":   {good(map[string]any{"driver": "mysql", "dsn": "u:" + secret + "@tcp(h:1)/d?allowCleartextPasswords=true"}), []string{"dsn: allowCleartextPasswords", "tls=true"}},
		"an old password of MySQL":            {good(map[string]any{"driver": "mysql", "dsn": "u:" + secret + "@tcp(h:1)/d?allowOldPasswords=true"}), []string{"dsn: allowOldPasswords"}},
		"a CA of MySQL that cannot be read":   {good(map[string]any{"driver": "mysql", "dsn": "u:" + secret + "@tcp(h:1)/d?ssl-ca=/nowhere"}), []string{"dsn: the file of ssl-ca"}},
		"a certificate of MySQL without key":  {good(map[string]any{"driver": "mysql", "dsn": "u:" + secret + "@tcp(h:1)/d?ssl-cert=/nowhere"}), []string{"dsn: the files of ssl-cert and ssl-key"}},
		"SQLite in memory":                    {good(map[string]any{"driver": "sqlite", "dsn": ":memory:"}), []string{"in memory", "name a file"}},
		"SQLite in memory by its URI":         {good(map[string]any{"driver": "sqlite", "dsn": "file::memory:"}), []string{"in memory"}},
		"SQLite to be written to":             {good(map[string]any{"driver": "sqlite", "dsn": "file:/a.db?mode=rwc"}), []string{"mode=ro"}},
		"SQLite with a pragma":                {good(map[string]any{"driver": "sqlite", "dsn": "file:/a.db?_pragma=query_only(0)"}), []string{"mode=ro"}},
		"a negative number of connections":    {good(map[string]any{"max_open_conns": -1}), []string{"max_open_conns"}},
		"connections without bound":           {good(map[string]any{"max_open_conns": 100000}), []string{"max_open_conns", "1000"}},
		"more idle connections than open":     {good(map[string]any{"max_idle_conns": 11}), []string{"max_idle_conns", "max_open_conns"}},
		"a negative lifetime":                 {good(map[string]any{"conn_max_lifetime": -1}), []string{"conn_max_lifetime"}},
		"a negative idle time":                {good(map[string]any{"conn_max_idle_time": -1}), []string{"conn_max_idle_time"}},
		"a placeholder in the wrong language": {good(map[string]any{"query": columns + "where kc_id = ${KC} and tenant = :tenant"}), []string{":kc_id"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, test.config)
			if err == nil {
				t.Fatal("accepted")
			}
			checkError(t, err, secret, test.want...)
			if n := len(databases.All()); n != 0 {
				t.Errorf("%d databases are left behind", n)
			}
		})
	}
}

// Caddy must start, and `caddy validate` pass, while the database is down.
func TestLoadingDoesNotConnect(t *testing.T) {
	r := mustLoad(t, map[string]any{"driver": "postgres", "dsn": "postgres://u:hunter2secret@127.0.0.1:1/d", "query": columns + byKey})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := r.Resolve(ctx, member.Query{KCID: "a", Tenant: "t", Issuer: "i"})
	if err == nil {
		t.Fatal("no error from a closed port")
	}
	checkError(t, err, "hunter2secret", "querying the members", "127.0.0.1:1", "refused")
}

func TestIdentity(t *testing.T) {
	base := map[string]any{"driver": "postgres", "dsn": "postgres://u:hunter2secret@h:5433/d?sslmode=require", "query": columns + byKey}
	identity := func(changes map[string]any) string {
		config := make(map[string]any)
		for _, m := range []map[string]any{base, changes} {
			maps.Copy(config, m)
		}
		r := mustLoad(t, config)
		checkError(t, textError(r.Identity()), "hunter2secret")
		return r.Identity()
	}
	want := identity(nil)
	checkError(t, textError(want), "", "sql", "postgres", "h:5433", "kc_id = :kc_id")

	same := map[string]map[string]any{
		"the password":         {"dsn": "postgres://u:other@h:5433/d?sslmode=require"},
		"the form of the dsn":  {"dsn": "host=h port=5433 user=u dbname=d sslmode=require password=x"},
		"the application name": {"dsn": "postgres://u@h:5433/d?application_name=x&sslmode=require"},
		"the size of the pool": {"max_open_conns": 3},
		"TLS as a preference":  {"dsn": "postgres://u@h:5433/d?sslmode=prefer"},
	}
	for what, change := range same {
		if got := identity(change); got != want {
			t.Errorf("%s changes it: %s", what, got)
		}
	}
	different := map[string]map[string]any{
		"the host":            {"dsn": "postgres://u@h2:5433/d"},
		"the port":            {"dsn": "postgres://u@h/d"},
		"the database":        {"dsn": "postgres://u@h:5433/d2"},
		"the user":            {"dsn": "postgres://u2@h:5433/d"},
		"a fallback host":     {"dsn": "postgres://u@h:5433,h2:5433/d"},
		"the search path":     {"dsn": "postgres://u@h:5433/d?search_path=acme"},
		"the query":           {"query": columns + byKey + " and id > 0"},
		"the kind and driver": {"driver": "sqlite", "dsn": "d"},
	}
	for what, change := range different {
		if identity(change) == want {
			t.Errorf("%s does not change it", what)
		}
	}
}

// textError lets checkError look at any text.
type textError string

func (e textError) Error() string { return string(e) }

// A reload with the same settings must find the connections it left, one with
// another password must not.
func TestPoolsOutliveReloads(t *testing.T) {
	t.Setenv("KCA_TEST_PASSWORD", "one")
	config := func(changes map[string]any) []byte {
		c := map[string]any{"driver": "postgres", "dsn": "postgres://u:{env.KCA_TEST_PASSWORD}@h/d", "query": columns + byKey}
		maps.Copy(c, changes)
		raw, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	start := func(raw []byte) (*Resolver, context.CancelFunc) {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
		module, err := ctx.LoadModuleByID(member.Namespace+".sql", raw)
		if err != nil {
			cancel()
			t.Fatal(err)
		}
		return module.(*Resolver), cancel
	}
	first, stopFirst := start(config(nil))
	second, stopSecond := start(config(map[string]any{"query": columns + byKey + " and true"}))
	if first.place.one != second.place.one {
		t.Error("another query makes another pool")
	}
	stopFirst()
	if err := first.Cleanup(); err != nil { // once more: must not take the share of the second
		t.Error(err)
	}
	if n := len(databases.All()); n != 1 {
		t.Errorf("%d pools while one configuration uses one", n)
	}
	t.Setenv("KCA_TEST_PASSWORD", "two")
	third, stopThird := start(config(nil))
	if third.place.one == second.place.one {
		t.Error("a rotated password keeps the pool")
	}
	fourth, stopFourth := start(config(map[string]any{"max_open_conns": 2}))
	if fourth.place.one == third.place.one {
		t.Error("another size keeps the pool")
	}
	stopSecond()
	stopThird()
	stopFourth()
	if n := len(databases.All()); n != 0 {
		t.Errorf("%d pools are left behind", n)
	}
}

func TestDefaultsOfThePool(t *testing.T) {
	r := mustLoad(t, map[string]any{"driver": "sqlite", "dsn": filepath.Join(t.TempDir(), "a.db"), "query": columns + byKey})
	if got := r.place.one.db.Stats().MaxOpenConnections; got != 10 {
		t.Errorf("at most %d connections, want 10", got)
	}
	got := (&Resolver{MaxOpenConns: 4}).settings()
	want := settings{MaxOpenConns: 4, MaxIdleConns: 4, ConnMaxLifetime: 30 * time.Minute, ConnMaxIdleTime: 5 * time.Minute}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

package keycloakcacheauth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	claimsresolver "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/claims"
	httpresolver "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/http"
	keycloakresolver "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/keycloak"
	sqlresolver "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/sql"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/static"
)

// object is a JSON object of a configuration.
type object map[string]any

// jsonConfig returns the smallest configuration that works, with other values
// for some of its fields; nil removes a field.
func jsonConfig(issuer string, fields object) object {
	config := object{
		"issuers":   []any{object{"url": issuer}},
		"audiences": []any{"shop"},
		"resolvers": []any{object{"resolver": "static", "members": []any{
			object{"tenant": "acme", "kc_id": "0a1b", "id": "m-1"},
		}}},
	}
	for name, value := range fields {
		if value == nil {
			delete(config, name)
		} else {
			config[name] = value
		}
	}
	return config
}

// sqlConfig returns the resolver of a database at an address.
func sqlConfig(dsn string) object {
	return object{
		"resolver": "sql", "driver": "postgres", "dsn": dsn,
		"query": "select kc_id, tenant, active, id from members where kc_id = :kc_id and tenant = :tenant",
	}
}

// loadJSON loads handlers into one configuration, as Caddy does, and returns
// what ends that configuration.
func loadJSON(tb testing.TB, configs ...object) ([]*Handler, context.CancelFunc, error) {
	tb.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	var handlers []*Handler
	for _, config := range configs {
		raw, err := json.Marshal(config)
		if err != nil {
			tb.Fatal(err)
		}
		mod, err := ctx.LoadModuleByID("http.handlers.keycloak_cache_auth", raw)
		if err != nil {
			cancel()
			return nil, nil, err
		}
		handlers = append(handlers, mod.(*Handler))
	}
	return handlers, cancel, nil
}

// mustLoadJSON is loadJSON for one handler that is in order.
func mustLoadJSON(tb testing.TB, config object) (*Handler, context.CancelFunc) {
	tb.Helper()
	handlers, cancel, err := loadJSON(tb, config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(cancel) // a second call does nothing
	return handlers[0], cancel
}

func TestFaultsInJSON(t *testing.T) {
	t.Setenv("KCA_TEST_PASSWORD", secretInTests)
	t.Setenv("KCA_TEST_URL_WITH_PASSWORD", "https://admin:"+secretInTests+"@kc.test/realms/a")
	t.Setenv("KCA_TEST_PLAIN_URL", "http://kc.test/realms/a")
	const issuer = "https://kc.test/realms/a"
	issuerWith := func(name string, value any) object {
		return object{"issuers": []any{object{"url": issuer, name: value}}}
	}
	store := func(fields object) object { return object{"stores": []any{fields}} }

	for name, tc := range map[string]struct {
		fields object
		want   string // in the error
	}{
		"CF-001: ttl negative":                       {object{"ttl": "-5s"}, "ttl: -5s"},
		"CF-001: ttl enormous":                       {object{"ttl": "1000d"}, "ttl: 24000h"},
		"CF-001: ttl is no duration":                 {object{"ttl": "abc"}, "invalid duration"},
		"CF-003: issuer without scheme":              {object{"issuers": []any{object{"url": "kc.test/realms/a"}}}, "issuer: not an absolute"},
		"CF-003: issuer with a password":             {object{"issuers": []any{object{"url": "https://:" + secretInTests + "@kc.test/a"}}}, "issuer: the URL holds"},
		"CF-003: issuer with a password from env":    {object{"issuers": []any{object{"url": "{env.KCA_TEST_URL_WITH_PASSWORD}"}}}, "issuer: the URL holds"},
		"CF-003: issuer with a request placeholder":  {object{"issuers": []any{object{"url": "https://kc.test/realms/{http.request.host}"}}}, "issuer: it holds a placeholder"},
		"issuer template in the host":                {object{"issuers": []any{object{"url": "https://{tenant}.kc.test/realms/main"}}}, "outside of its path"},
		"two realms that could speak for each other": {object{"issuers": []any{object{"url": issuer}, object{"url": "https://kc.test/realms/b"}}}, "a tenant is open to two issuers"},
		"a bound and an unbound realm":               {object{"issuers": []any{object{"url": issuer, "tenants": []any{"t1"}}, object{"url": "https://kc.test/realms/b"}}}, "a tenant is open to two issuers"},
		"two realms with a tenant in common": {object{"issuers": []any{
			object{"url": issuer, "tenants": []any{"t1", "t2"}}, object{"url": "https://kc.test/realms/b", "tenants": []any{"t3", "t2"}},
		}}, "a tenant is open to two issuers"},
		"a realm beside a template of any tenant": {object{"issuers": []any{
			object{"url": issuer, "tenants": []any{"t1"}}, object{"url": "https://kc.test/realms/{tenant}"},
		}}, "a tenant is open to two issuers"},
		"two realms that only their own claims keep apart": {object{"tenant_claim": "organization", "issuers": []any{
			object{"url": issuer}, object{"url": "https://kc.test/realms/b"},
		}}, "a tenant is open to two issuers"},
		"an issuer's tenant that can be none":     {object{"issuers": []any{object{"url": issuer, "tenants": []any{"t:1"}}}}, "tenants: "},
		"requirement of an unknown kind":          {object{"require": []any{object{"kind": "role", "any_of": []any{"a"}}}}, "require: "},
		"requirement without names":               {object{"require": []any{object{"kind": "scope"}}}, "require: scope: names nothing"},
		"token from the body":                     {object{"token_from": []any{object{"from": "body"}}}, "token_from: "},
		"negative max_token_lifetime":             {object{"max_token_lifetime": -1}, "max_token_lifetime: "},
		"CF-004: no issuer":                       {object{"issuers": nil}, "issuer is required"},
		"CF-004: issuer null":                     {object{"issuers": []any{nil}}, "issuer: null"},
		"CF-004: issuer without url":              {object{"issuers": []any{object{}}}, "issuer: the realm's URL is missing"},
		"CF-005: no audience":                     {object{"audiences": nil}, "audience is required"},
		"CF-005: empty audience":                  {object{"audiences": []any{""}}, "audience: a name is empty"},
		"CF-005: audience and audience_off":       {object{"audience_off": true}, "audience: off excludes"},
		"CF-006: two issuers":                     {object{"issuers": []any{object{"url": issuer}, object{"url": issuer}}}, "issuer: the same realm is given twice"},
		"CF-006: two stores":                      {object{"stores": []any{object{"url": "memory://"}, object{"url": "memory://"}}}, "store is given twice"},
		"CF-008: unknown field":                   {object{"isuer": issuer}, `unknown field "isuer"`},
		"CF-008: unknown field of the issuer":     {issuerWith("introspection", object{}), `unknown field "introspection"`},
		"CF-008: unknown field of the store":      {store(object{"url": "memory://", "secret": secretInTests}), `unknown field "secret"`},
		"CF-008: field of a later version":        {object{"decide_later": true}, `unknown field "decide_later"`},
		"CF-010: algorithm none":                  {object{"algorithms": []any{"none"}}, `algorithms: "none"`},
		"CF-010: algorithm HS256":                 {object{"algorithms": []any{"RS256", "HS256"}}, `algorithms: "HS256"`},
		"CF-011: plain http issuer":               {object{"issuers": []any{object{"url": "http://kc.test/realms/a"}}}, "issuer: http:// is only accepted"},
		"CF-011: plain http issuer from env":      {object{"issuers": []any{object{"url": "{env.KCA_TEST_PLAIN_URL}"}}}, "issuer: http:// is only accepted"},
		"CF-011: plain http jwks_url":             {issuerWith("jwks_url", "http://kc.test/certs"), "jwks_url: http:// is only accepted"},
		"CF-012: store's database is no number":   {store(object{"url": "redis://:{env.KCA_TEST_PASSWORD}@127.0.0.1:1/x"}), "store: "},
		"CF-012: store's scheme is unknown":       {store(object{"url": "redis+tls://:{env.KCA_TEST_PASSWORD}@127.0.0.1:1"}), "store: the URL's scheme"},
		"CF-012: store's URL names no master":     {store(object{"url": "redis+sentinel://:{env.KCA_TEST_PASSWORD}@127.0.0.1:1"}), "store: the URL names no master"},
		"store: secret that is short":             {store(object{"url": "redis://127.0.0.1:1", "secrets": []any{"{env.KCA_TEST_PASSWORD}"}}), "secret: it is shorter"},
		"store: a tenant in two stores":           {object{"stores": []any{object{"url": "redis://127.0.0.1:1", "tenants": []any{"a"}}, object{"url": "redis://127.0.0.1:2", "tenants": []any{"a"}}}}, "store: a tenant is given to two stores"},
		"negative negative_ttl":                   {object{"negative_ttl": -1}, "negative_ttl: "},
		"refresh_ahead beyond ttl":                {object{"refresh_ahead": "60s"}, "refresh_ahead: "},
		"CF-012: store's password has braces":     {store(object{"url": "redis://:a{" + secretInTests + "}@127.0.0.1:1"}), "store: it holds a placeholder"},
		"CF-012: dsn with a password":             {object{"resolvers": []any{sqlConfig("postgres://u:{env.KCA_TEST_PASSWORD}@:nonsense/db")}}, "dsn: "},
		"CF-012: dsn whose password has braces":   {object{"resolvers": []any{sqlConfig("postgres://u:a{" + secretInTests + "}@127.0.0.1:1/db")}}, "dsn: "},
		"CF-013: issuer unset":                    {object{"issuers": []any{object{"url": "{env.KCA_TEST_UNSET}"}}}, "issuer: "},
		"CF-013: jwks_url unset":                  {issuerWith("jwks_url", "{env.KCA_TEST_UNSET}"), "jwks_url: "},
		"CF-013: audience unset":                  {object{"audiences": []any{"{env.KCA_TEST_UNSET}"}}, "audience: "},
		"CF-013: store unset":                     {store(object{"url": "redis://:{env.KCA_TEST_UNSET}@127.0.0.1:1"}), "store: "},
		"CF-013: store's file missing":            {store(object{"url": "redis://:{file./no/such/file}@127.0.0.1:1"}), "store: "},
		"CF-013: store unset beside a secret":     {store(object{"url": "redis://{env.KCA_TEST_UNSET}:" + secretInTests + "@127.0.0.1:1"}), "store: "},
		"CF-013: dsn unset":                       {object{"resolvers": []any{sqlConfig("{env.KCA_TEST_UNSET}")}}, "dsn: "},
		"CF-014: header's name is none":           {object{"headers": []any{object{"name": "X User", "value": "a"}}}, "header: "},
		"CF-014: header twice":                    {object{"headers": []any{object{"name": "X-User", "value": "a"}, object{"name": "x_user", "value": "b"}}}, "header: "},
		"CF-014: header with a shorthand":         {object{"headers": []any{object{"name": "X-User", "value": "{host}"}}}, "header: {host}"},
		"CF-014: header and headers_off":          {object{"headers_off": true, "headers": []any{object{"name": "X-User", "value": "a"}}}, "header: off excludes"},
		"CF-015: header that CGI makes one":       {object{"headers": []any{object{"name": "Proxy", "value": "a"}}}, "header: Proxy has a meaning"},
		"CF-015: header hop by hop":               {object{"headers": []any{object{"name": "transfer_encoding", "value": "a"}}}, "header: transfer_encoding has a meaning"},
		"CF-015: header of WebSockets":            {object{"headers": []any{object{"name": "Sec-WebSocket-Key", "value": "a"}}}, "header: Sec-WebSocket-Key has a meaning"},
		"CF-015: header Host":                     {object{"headers": []any{object{"name": "Host", "value": "a"}}}, "header: Host"},
		"CF-016: tenant_header is an identity's":  {object{"tenant_header": "x_user.id"}, "tenant_header: "},
		"CF-017: no resolver":                     {object{"resolvers": nil}, "resolver is required"},
		"CF-017: unknown resolver":                {object{"resolvers": []any{object{"resolver": "mongodb"}}}, "resolver"},
		"CF-017: tenant and tenant_header":        {object{"tenant": "{http.request.host}", "tenant_header": "X-Customer"}, "tenant and tenant_header"},
		"CF-017: strip_only and issuer":           {object{"strip_only": true}, "strip_only"},
		"CF-018: max_size negative":               {object{"memory": object{"max_size": -1}}, "memory: max_size"},
		"CF-018: max_tokens_size too small":       {object{"memory": object{"max_tokens_size": 1}}, "memory: max_tokens_size"},
		"CF-018: max_size enormous":               {object{"memory": object{"max_size": 1 << 50}}, "memory: max_size"},
		"CF-018: leeway enormous":                 {object{"leeway": "2m"}, "leeway: 2m0s"},
		"CF-018: leeway negative":                 {object{"leeway": "-1s"}, "leeway: -1s"},
		"CF-018: timeout enormous":                {object{"timeout": "1h"}, "timeout: 1h0m0s"},
		"CF-018: store's timeout enormous":        {store(object{"url": "redis://127.0.0.1:1", "timeout": "1m"}), "store: timeout"},
		"CF-022: key_prefix with glob":            {store(object{"url": "redis://127.0.0.1:1", "key_prefix": "*"}), "key_prefix: "},
		"CF-022: namespace with a colon":          {store(object{"url": "memory://", "namespace": "a:b"}), "namespace: "},
		"trust_pool's file missing":               {issuerWith("trust_pool", object{"provider": "file", "pem_files": []any{"/no/such/file"}}), "trust_pool: "},
		"trust_pool's provider unknown":           {issuerWith("trust_pool", object{"provider": "nowhere"}), "trust_pool: "},
		"trust_pool without provider":             {issuerWith("trust_pool", object{}), "trust_pool: "},
		"client certificate without key":          {issuerWith("client_certificate_file", "a.crt"), "client_certificate"},
		"preflight is neither":                    {object{"preflight": "allow"}, "preflight: "},
		"tenant_pattern is broken":                {object{"tenant_pattern": "[a-z"}, "tenant_pattern: "},
		"tenant_pattern would escape its anchors": {object{"tenant_pattern": "a)|(b"}, "tenant_pattern: "},
		"tenant_default does not match":           {object{"tenant_default": "a:b"}, "tenant_default: "},
		"report_only and strip_token":             {object{"report_only": true, "strip_token": true}, "report_only leaves"},
		"compare_header without report_only":      {object{"compare_header": object{"name": "X-Member-ID"}}, "compare_header needs report_only"},
		"compare_header without a name":           {object{"report_only": true, "compare_header": object{}}, "compare_header: the header's name is missing"},
		"cache_status is no name":                 {object{"cache_status": "a b"}, "cache_status: "},
		"tenant_aliases: nothing said":            {object{"tenant_aliases": object{"": "acme"}}, "tenant_aliases: "},
		"tenant_aliases: control characters":      {object{"tenant_aliases": object{"a\x00": "acme"}}, "tenant_aliases: "},
		"tenant_aliases: a target that is none":   {object{"tenant_aliases": object{"old": "a b"}}, "tenant_aliases: "},
		"tenant_aliases_open without any":         {object{"tenant_aliases_open": true}, "tenant_aliases: open"},
		"store is null":                           {object{"stores": []any{nil}}, "store: null"},
		"memory store with something after it":    {store(object{"url": "memory:redis"}), "store: memory:// takes nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := loadJSON(t, jsonConfig(issuer, tc.fields))
			if err == nil {
				t.Fatal("loaded without an error")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%q does not contain %q", err, tc.want)
			}
			if strings.Contains(err.Error(), secretInTests) {
				t.Errorf("%q shows a secret", err)
			}
		})
	}
}

// setTestEnvironment sets what the Caddyfiles in testdata/adapt take from the
// environment.
func setTestEnvironment(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	writeCertificate(t, filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key"))
	key, err := os.ReadFile(assertionKey(t))
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	writeKey(t, filepath.Join(dir, "assertion.pem"), other)
	database := filepath.Join(dir, "members.db")
	if err := os.WriteFile(database, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"KCA_TEST_DIR":      dir,
		"KCA_TEST_AUDIENCE": "shop-admin",

		"KCA_TEST_NONCE_SECRET": "0123456789abcdef0123456789abcdef",
		"KCA_TEST_ISSUER":       "https://sso.example.com/realms/other",
		"KCA_TEST_DSN":          "postgres://reader@db.invalid/app",
		"KCA_TEST_PASSWORD":     secretInTests,
		// of the document's example
		"REDIS_PASSWORD": secretInTests,
		"MEMBERS_DSN":    "postgres://reader@db.invalid/app",
		"ASSERTION_KEY":  string(key),
	} {
		t.Setenv(name, value)
	}
}

func writeCertificate(t *testing.T, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "caddy"}}
	der, err := x509.CreateCertificate(rand.Reader, certificate, certificate, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// handlersIn returns our handlers in a whole configuration of Caddy.
func handlersIn(tb testing.TB, config []byte) []object {
	tb.Helper()
	var whole any
	if err := json.Unmarshal(config, &whole); err != nil {
		tb.Fatal(err)
	}
	var found []object
	var search func(any)
	search = func(value any) {
		switch value := value.(type) {
		case []any:
			for _, item := range value {
				search(item)
			}
		case map[string]any:
			if value["handler"] == directive {
				delete(value, "handler") // Caddy takes it away, too
				found = append(found, value)
				return
			}
			for _, name := range slices.Sorted(maps.Keys(value)) {
				search(value[name])
			}
		}
	}
	search(whole)
	return found
}

// asObject returns what a value looks like as JSON.
func asObject(tb testing.TB, value any) object {
	tb.Helper()
	raw, err := json.Marshal(value)
	if err != nil {
		tb.Fatal(err)
	}
	var result object
	if err := json.Unmarshal(raw, &result); err != nil {
		tb.Fatal(err)
	}
	return result
}

// CF-021: a Caddyfile's JSON is taken in strictly, loads, and comes out again
// as it was.
func TestAdaptedConfigsLoadAndComeBack(t *testing.T) {
	setTestEnvironment(t)
	for _, c := range adaptCases(t, "ok_") {
		t.Run(c.name, func(t *testing.T) {
			adapted, err := adapt(t, c.input)
			if err != nil {
				t.Fatal(err)
			}
			handlers := handlersIn(t, adapted)
			if len(handlers) == 0 {
				t.Fatal("no handler in the adapted configuration")
			}
			for i, config := range handlers {
				raw, err := json.Marshal(config)
				if err != nil {
					t.Fatal(err)
				}
				var h Handler
				if err := caddy.StrictUnmarshalJSON(raw, &h); err != nil {
					t.Fatal(err)
				}
				if back := asObject(t, h); !reflect.DeepEqual(back, config) {
					t.Errorf("handler %d came back as\n%v\nnot as\n%v", i, back, config)
				}

				loaded, _ := mustLoadJSON(t, config)
				delete(config, "resolvers") // Caddy frees the JSON of loaded guests
				if back := asObject(t, loaded); !reflect.DeepEqual(back, config) {
					t.Errorf("handler %d was changed by loading it:\n%v\nnot\n%v", i, back, config)
				}
			}
		})
	}
}

// jsonFields returns the JSON names of the fields that a configuration's types
// have.
func jsonFields(types ...any) []string {
	var names []string
	for _, value := range types {
		for field := range reflect.TypeOf(value).Fields() {
			if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
				names = append(names, name)
			}
		}
	}
	return names
}

var configTypes = []any{
	Handler{},
	Issuer{},
	Memory{},
	Store{},
	Introspect{},
	DPoP{},
	Assertion{},
	Header{},
	CompareHeader{},
	TokenSource{},
	Requirement{},
	sqlresolver.Resolver{},
	httpresolver.Resolver{},
	keycloakresolver.Resolver{},
	claimsresolver.Resolver{},
	static.Resolver{},
	static.Member{},
}

// An option that is added must be added to the file that the test above reads.
func TestEveryFieldIsSetBySomeCaddyfile(t *testing.T) {
	cases := adaptCases(t, "ok_cf_021_every_option")
	for _, field := range jsonFields(configTypes...) {
		if !strings.Contains(cases[0].want, `"`+field+`":`) {
			t.Errorf("no Caddyfile sets %s", field)
		}
	}
}

package sqlresolver

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Provision reads the query and prepares the database's pool. It does not
// connect.
func (r *Resolver) Provision(ctx caddy.Context) error {
	r.log = ctx.Logger()
	kind, err := r.kind()
	if err != nil {
		return err
	}
	if err := r.provisionPlace(kind); err != nil {
		return err
	}
	if err := r.provisionPlan(kind.lexis); err != nil {
		return err
	}
	if err := r.provisionWrites(kind); err != nil {
		return err
	}
	if err := r.provisionListener(); err != nil {
		return err
	}
	r.identity, err = r.identify()
	return err
}

// schemaTemplate matches a search path that names the tenant's schema first.
var schemaTemplate = regexp.MustCompile(`^[A-Za-z0-9_]*\{tenant\}[A-Za-z0-9_]*(?:\s*,\s*[A-Za-z_][A-Za-z0-9_]*)*$`)

// provisionPlace takes a share of the database or databases.
func (r *Resolver) provisionPlace(kind kind) error {
	settings := r.settings()
	if r.Schema != "" {
		if r.Driver != "postgres" {
			return errors.New("schema: only PostgreSQL has them; put {tenant} into the dsn")
		}
		if !schemaTemplate.MatchString(r.Schema) {
			return errors.New("schema: it must be a name with {tenant} in it, such as tenant_{tenant}, and perhaps others after a comma; for one schema for all, put search_path into the dsn")
		}
		settings.Schema = r.Schema
	}
	var err error
	if settings.DSN, err = expandDSN(r.DSN); err != nil {
		return fmt.Errorf("dsn: %w", err)
	}
	if r.MaxTenants != 0 && !settings.perTenant() {
		return errors.New("max_tenants: there is one database for all; put {tenant} into dsn or schema, or leave it out")
	}
	place, release, err := newPlace(kind, settings, r.maxTenants())
	if err != nil {
		return fmt.Errorf("dsn: %w", err)
	}
	r.place, r.releases = place, append(r.releases, release)
	return nil
}

func (r *Resolver) maxTenants() int {
	if r.MaxTenants == 0 {
		return defaultMaxTenants
	}
	return r.MaxTenants
}

// provisionPlan reads the statements.
func (r *Resolver) provisionPlan(lx lexis) error {
	if r.Query == "" {
		return errors.New("query: none is given; add one that selects kc_id, tenant, active and id")
	}
	find, create := finding, creating
	if r.place.many != nil {
		find, create = find.withinTenant(), create.withinTenant()
	}
	var err error
	if r.plan.find, err = compile(r.Query, lx, find); err != nil {
		return fmt.Errorf("query: %w", err)
	}
	if r.Profile != "" {
		if r.plan.profile, err = compile(r.Profile, lx, enriching); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		if len(r.plan.profile.params) == 0 {
			return errors.New("profile: it does not say whose; compare something with :member_id or :kc_id")
		}
	}
	if r.OnUnknown != "" {
		if r.plan.create, err = compile(r.OnUnknown, lx, create); err != nil {
			return fmt.Errorf("on_unknown: %w", err)
		}
	}
	return nil
}

// provisionWrites takes a share of the database to write to.
func (r *Resolver) provisionWrites(kind kind) error {
	if r.OnUnknown == "" {
		if r.WriteDSN != "" {
			return errors.New("write_dsn: nothing writes; add on_unknown, or leave it out")
		}
		return nil
	}
	settings := r.settings()
	settings.Schema, settings.Write = r.Schema, true
	settings.MaxOpenConns = min(settings.MaxOpenConns, maxWriters)
	settings.MaxIdleConns = min(settings.MaxIdleConns, maxWriters)
	option, dsn := "write_dsn", r.WriteDSN
	if dsn == "" {
		option, dsn = "dsn", r.DSN
	}
	var err error
	if settings.DSN, err = expandDSN(dsn); err != nil {
		return fmt.Errorf("%s: %w", option, err)
	}
	if settings.perTenant() != (r.place.many != nil) {
		return errors.New("write_dsn: it must have {tenant} in it if and only if dsn has; the member would be created elsewhere than it is looked for")
	}
	place, release, err := newPlace(kind, settings, r.maxTenants())
	if err != nil {
		return fmt.Errorf("%s: %w", option, err)
	}
	r.writes, r.releases = place, append(r.releases, release)
	return nil
}

// identify returns what tells this resolver from others. Where members are
// created does not: the answers are those of the query.
func (r *Resolver) identify() (string, error) {
	where, err := r.place.describe()
	if err != nil {
		return "", fmt.Errorf("describing the database: %w", err)
	}
	what := []string{"sql", r.Driver, where, r.Query}
	if r.Profile != "" {
		what = append(what, r.Profile)
	}
	identity, err := json.Marshal(what)
	if err != nil {
		return "", fmt.Errorf("describing the database: %w", err)
	}
	return string(identity), nil
}

// kind returns what is peculiar to the configured driver.
func (r *Resolver) kind() (kind, error) {
	switch r.Driver {
	case "postgres":
		return postgresKind, nil
	case "mysql":
		return mysqlKind, nil
	case "sqlite":
		return sqliteKind, nil
	case "":
		return kind{}, errors.New("driver: none is given; use postgres, mysql or sqlite")
	default:
		return kind{}, fmt.Errorf("driver: %q is not known; use postgres, mysql (for MariaDB, too) or sqlite", r.Driver)
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
	const kept = "\x00tenant\x00" // {tenant} is no placeholder of Caddy's
	expanded, err := repl.ReplaceOrErr(strings.ReplaceAll(dsn, tenantMark, kept), true, true)
	if err == nil {
		return strings.ReplaceAll(expanded, kept, tenantMark), nil
	}
	for _, match := range secretPlaceholder.FindAllStringSubmatch(dsn, -1) {
		if value, known := repl.GetString(match[1]); !known || value == "" {
			return "", fmt.Errorf("the placeholder {%s} is empty; set what it names for Caddy's process", match[1])
		}
	}
	return "", errors.New(`it holds a placeholder that is not known; use {env.NAME} or {file./path}, and write \{ for a brace that begins none`)
}

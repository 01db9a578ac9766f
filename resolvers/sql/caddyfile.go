package sqlresolver

import (
	"regexp"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// UnmarshalCaddyfile sets up the resolver from Caddyfile tokens. Syntax:
//
//	resolver sql {
//	    driver             postgres | mysql | sqlite
//	    dsn                <dsn>
//	    query              <query>
//	    max_open_conns     <number>
//	    max_idle_conns     <number>
//	    conn_max_lifetime  <duration>
//	    conn_max_idle_time <duration>
//
//	    invalidate_on_notify <channel>
//	    listen_dsn           <dsn>
//
//	    schema      <template>
//	    max_tenants <number>
//	    profile     <query>
//	    on_unknown  <statement>
//	    write_dsn   <dsn>
//	}
func (r *Resolver) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the resolver's name
	if d.NextArg() {
		return d.Err("resolver sql takes no arguments; put its options into a block: resolver sql { … }")
	}
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		option := d.Val()
		if seen[option] {
			return d.Errf("%s is given twice; leave one of them out", option)
		}
		if err := r.unmarshalOption(d, option); err != nil {
			return err
		}
		seen[option] = true
	}
	for _, option := range []string{"driver", "dsn", "query"} {
		if !seen[option] {
			return d.Errf("resolver sql has no %s; add the line: %[1]s …", option)
		}
	}
	return nil
}

func (r *Resolver) unmarshalOption(d *caddyfile.Dispenser, option string) error {
	switch option {
	case "driver":
		if err := argument(d, option, &r.Driver); err != nil {
			return err
		}
		if _, err := r.kind(); err != nil {
			return d.WrapErr(err)
		}
		return nil
	case "dsn":
		return argument(d, option, &r.DSN)
	case "query":
		return argument(d, option, &r.Query)
	case "max_open_conns":
		return number(d, option, &r.MaxOpenConns)
	case "max_idle_conns":
		return number(d, option, &r.MaxIdleConns)
	case "conn_max_lifetime":
		return duration(d, option, &r.ConnMaxLifetime)
	case "conn_max_idle_time":
		return duration(d, option, &r.ConnMaxIdleTime)
	case "invalidate_on_notify":
		return argument(d, option, &r.InvalidateOnNotify)
	case "listen_dsn":
		return argument(d, option, &r.ListenDSN)
	case "schema":
		return argument(d, option, &r.Schema)
	case "max_tenants":
		return number(d, option, &r.MaxTenants)
	case "profile":
		return argument(d, option, &r.Profile)
	case "on_unknown":
		return argument(d, option, &r.OnUnknown)
	case "write_dsn":
		return argument(d, option, &r.WriteDSN)
	}
	const known = "driver, dsn, query, max_open_conns, max_idle_conns, conn_max_lifetime, conn_max_idle_time, " +
		"invalidate_on_notify, listen_dsn, schema, max_tenants, profile, on_unknown and write_dsn"
	if !optionName.MatchString(option) {
		// perhaps the rest of a broken line, and with it a secret
		return d.Errf("resolver sql has a line that begins with none of its options, which are %s", known)
	}
	return d.Errf("resolver sql has no option %q; it has %s", option, known)
}

var optionName = regexp.MustCompile(`^[a-z_]{1,32}$`)

// argument stores the option's only argument. Unlike Dispenser.ArgErr its
// errors do not quote what they found, which may be a secret.
func argument(d *caddyfile.Dispenser, option string, value *string) error {
	if !d.NextArg() {
		return d.Errf("%s has no value; write it on the same line", option)
	}
	*value = d.Val()
	if *value == "" {
		return d.Errf("%s is empty; give it a value", option)
	}
	if d.NextArg() {
		return d.Errf("%s takes one value; put quotes around one that holds blanks", option)
	}
	return nil
}

func number(d *caddyfile.Dispenser, option string, value *int) error {
	var text string
	if err := argument(d, option, &text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return d.Errf("%s must be a whole number from 1 up, such as 10", option)
	}
	*value = n
	return nil
}

func duration(d *caddyfile.Dispenser, option string, value *caddy.Duration) error {
	var text string
	if err := argument(d, option, &text); err != nil {
		return err
	}
	parsed, err := caddy.ParseDuration(text)
	if err != nil || parsed <= 0 {
		return d.Errf("%s must be a positive duration such as 30m or 1d", option)
	}
	*value = caddy.Duration(parsed)
	return nil
}

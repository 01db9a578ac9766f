// Package options reads what the configurations of resolvers have in common:
// lines of a Caddyfile, global placeholders, names of attributes.
//
// No error quotes a value, which may be a secret, nor what stands where the name
// of an option should be, unless it looks like one: it may be the rest of a broken
// line, with a secret.
package options

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

// Lines says how each option of a block is parsed. A function finds the dispenser
// at the option's name.
type Lines map[string]func() error

// Block parses the block of the resolver whose name comes next, in which each
// option may be given once, save for those that are repeatable, and returns those
// that were.
func Block(d *caddyfile.Dispenser, lines Lines, repeatable ...string) (map[string]bool, error) {
	d.Next() // consume the resolver's name
	resolver := "resolver " + d.Val()
	if d.NextArg() {
		return nil, d.Errf("%s takes no arguments; put its options into a block: %[1]s { … }", resolver)
	}
	given := make(map[string]bool)
	for d.NextBlock(0) {
		option := d.Val()
		parse, known := lines[option]
		switch {
		case !known && optionName.MatchString(option):
			return nil, d.Errf("%s has no option %q; it has %s", resolver, option, names(lines))
		case !known:
			return nil, d.Errf("%s has a line that begins with none of its options, which are %s", resolver, names(lines))
		case given[option] && !slices.Contains(repeatable, option):
			return nil, d.Errf("%s is given twice; leave one of them out", option)
		}
		given[option] = true
		if err := parse(); err != nil {
			return nil, err
		}
	}
	return given, nil
}

var optionName = regexp.MustCompile(`^[a-z_]{1,32}$`)

func names(lines Lines) string { return strings.Join(slices.Sorted(maps.Keys(lines)), ", ") }

// Argument stores the option's only argument.
func Argument(d *caddyfile.Dispenser, value *string) error {
	option := d.Val()
	args := d.RemainingArgs()
	switch {
	case len(args) == 0:
		return d.Errf("%s has no value; write it on the same line", option)
	case len(args) > 1:
		return d.Errf("%s takes one value; put quotes around one that holds blanks", option)
	case args[0] == "":
		return d.Errf("%s is empty; give it a value", option)
	}
	*value = args[0]
	return nil
}

// Arguments stores from least to most arguments, of which none is empty. usage
// says what they are, such as `<name> <value>`.
func Arguments(d *caddyfile.Dispenser, usage string, least, most int) ([]string, error) {
	option := d.Val()
	args := d.RemainingArgs()
	if len(args) < least || len(args) > most || slices.Contains(args, "") {
		return nil, d.Errf("%s is written: %[1]s %s", option, usage)
	}
	return args, nil
}

// Attribute stores a line `attribute <name> <where it comes from>` in one of the
// resolver's attributes, none of which may be given twice.
func Attribute(d *caddyfile.Dispenser, attributes *map[string]string, from string) error {
	args, err := Arguments(d, "<name> "+from, 2, 2)
	if err != nil {
		return err
	}
	name := args[0]
	if name == RolesAttribute {
		return d.Err("attribute roles has an option of its own; write a line that begins: roles …")
	}
	if err := CheckAttribute(name); err != nil {
		return d.WrapErr(err)
	}
	if _, given := (*attributes)[name]; given {
		return d.Errf("attribute %s is given twice; leave one of them out", name)
	}
	if *attributes == nil {
		*attributes = make(map[string]string)
	}
	(*attributes)[name] = args[1]
	return nil
}

// Flag stores that an option without argument is there.
func Flag(d *caddyfile.Dispenser, value *bool) error {
	option := d.Val()
	if d.NextArg() {
		return d.Errf("%s takes no value; leave the line out to turn it off", option)
	}
	*value = true
	return nil
}

// Duration stores a positive duration.
func Duration(d *caddyfile.Dispenser, value *caddy.Duration) error {
	option := d.Val()
	var text string
	if err := Argument(d, &text); err != nil {
		return err
	}
	parsed, err := caddy.ParseDuration(text)
	if err != nil || parsed <= 0 {
		return d.Errf("%s must be a positive duration such as 500ms or 2s", option)
	}
	*value = caddy.Duration(parsed)
	return nil
}

// TrustPool returns the JSON of a line `trust_pool <module> …`.
func TrustPool(d *caddyfile.Dispenser) ([]byte, error) {
	const namespace = "tls.ca_pool.source."
	if !d.NextArg() {
		return nil, d.Err("trust_pool needs the name of a module, such as: trust_pool file <path>")
	}
	name := d.Val()
	if _, err := caddy.GetModule(namespace + name); err != nil {
		return nil, d.Err("trust_pool names no module of this Caddy; use one that is, such as: trust_pool file <path>")
	}
	mod, err := caddyfile.UnmarshalModule(d, namespace+name)
	if err != nil {
		return nil, err
	}
	authority, ok := mod.(caddytls.CA)
	if !ok {
		return nil, d.Err("trust_pool names no source of certificate authorities; use another, such as: trust_pool file <path>")
	}
	return caddyconfig.JSONModuleObject(authority, "provider", name, nil), nil
}

// placeholder matches what is plainly a global placeholder.
var placeholder = regexp.MustCompile(`\{((?:env|file)\.[^{}]+)\}`)

// Expand expands the global placeholders of a value. The replacer's own error
// quotes whatever stands between braces, which may be part of a secret, so only
// what is plainly a placeholder is named.
func Expand(value string) (string, error) {
	if !strings.Contains(value, "{") {
		return valid(value)
	}
	repl := caddy.NewReplacer()
	if expanded, err := repl.ReplaceOrErr(value, true, true); err == nil {
		return valid(expanded)
	}
	for _, match := range placeholder.FindAllStringSubmatch(value, -1) {
		if value, known := repl.GetString(match[1]); !known || value == "" {
			return "", fmt.Errorf("the placeholder {%s} is empty; set what it names for Caddy's process", match[1])
		}
	}
	return "", errors.New(`it holds a placeholder that is not known; use {env.NAME} or {file./path}, and write \{ for a brace that begins none`)
}

func valid(value string) (string, error) {
	if !utf8.ValidString(value) {
		return "", errors.New("the value is not UTF-8 text; convert it")
	}
	return value, nil
}

// RolesAttribute is the attribute that is always a list.
const RolesAttribute = "roles"

var (
	// attributeName is what an attribute may be called: it becomes part of the
	// name of a placeholder.
	attributeName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,62}$`)

	// fields are the names of what is no attribute.
	fields = []string{"kc_id", "tenant", "active", "id", "issuer"}
)

// CheckAttribute refuses names that an attribute cannot have.
func CheckAttribute(name string) error {
	if !attributeName.MatchString(name) {
		return errors.New("an attribute's name consists of letters, digits, - and _, and of no more than 63 of them; rename it")
	}
	for _, field := range fields {
		if strings.EqualFold(name, field) {
			return fmt.Errorf("%q cannot be the name of an attribute; rename it", name)
		}
	}
	return nil
}

// CheckClaim refuses what cannot be the path of a claim.
func CheckClaim(path string) error {
	switch {
	case path == "":
		return errors.New("the path of the claim is missing; write it as in realm_access.roles")
	case len(path) > 255 || strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("the path of the claim is not printable text of at most 255 bytes; write it as in realm_access.roles")
	}
	return nil
}

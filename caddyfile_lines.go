package keycloakcacheauth

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// repeatable are the options that may stand in a block more than once.
var repeatable = map[string]bool{
	"header": true, "issuer": true, "resolver": true, "token_from": true, "store": true, "secret": true, "key": true,
	"scope": true, "realm_role": true, "client_role": true, "group": true, "acr": true,
}

// parseBlock parses a block, if there is one, and returns where in it each
// option was. What is not repeatable may be there once.
func parseBlock(d *caddyfile.Dispenser, owner string, options map[string]func() error) (map[string]caddyfile.Token, error) {
	given := make(map[string]caddyfile.Token)
	var before string
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		parse, known := options[option]
		switch {
		case option == "{":
			return nil, d.Errf("%s takes no block; remove the braces and what is between them", before)
		case !known:
			// ignored, a misspelt option could open the site
			return nil, d.Errf("unrecognized %s option %s; known are %s",
				owner, quoteName(option), strings.Join(slices.Sorted(maps.Keys(options)), ", "))
		}
		before = option
		if _, twice := given[option]; twice && !repeatable[option] {
			return nil, d.Errf("%s is given twice; keep one of the two", option)
		}
		given[option] = d.Token()
		if err := parse(); err != nil {
			return nil, err
		}
	}
	return given, nil
}

// quoteName quotes what was found where a name should be. What does not look
// like one is not shown: it may be the rest of a broken line, with a secret.
func quoteName(text string) string {
	if namePattern.MatchString(text) {
		return strconv.Quote(text)
	}
	return "(not shown, as it is no name)"
}

var namePattern = regexp.MustCompile(`^[A-Za-z_-]{1,40}$`)

// parseWord takes the option's single argument. Its error names the option and
// not what was given, which may be a secret.
func parseWord(d *caddyfile.Dispenser, dst *string) error {
	option := d.Val()
	if !d.AllArgs(dst) || *dst == "" {
		return d.Errf("%s takes exactly one argument; write it on the same line, in quotes if it holds blanks", option)
	}
	return nil
}

func parseFlag(d *caddyfile.Dispenser, dst *bool) error {
	option := d.Val()
	if d.NextArg() {
		return d.Errf("%s takes no argument; remove it, or remove the line to turn it off", option)
	}
	*dst = true
	return nil
}

// mayBeZero are the durations that mean something if they are zero. Elsewhere
// zero is JSON's way to leave the default.
var mayBeZero = map[string]bool{"leeway": true, "stale_if_error": true, "refresh_ahead": true}

// parseDuration takes a duration that is not negative.
func parseDuration(d *caddyfile.Dispenser, dst *caddy.Duration, most time.Duration) error {
	option := d.Val()
	var text string
	if err := parseWord(d, &text); err != nil {
		return err
	}
	duration, err := caddy.ParseDuration(text)
	switch {
	case err != nil:
		return d.Errf("%s is a duration with its unit, such as 500ms, 30s or 5m, not %q", option, text)
	case duration < 0 || duration > most:
		return d.Errf("%s is a duration up to %s, not %q", option, most, text)
	case duration == 0 && !mayBeZero[option]:
		return d.Errf("%s cannot be zero; remove the line for the default", option)
	}
	*dst = caddy.Duration(duration)
	return nil
}

// parseModule parses the rest of a line, and its block, with the module that
// the line names.
func parseModule(d *caddyfile.Dispenser, option, namespace, examples string) (string, caddyfile.Unmarshaler, error) {
	if !d.NextArg() {
		return "", nil, d.Errf("%s needs the name of a module, %s", option, examples)
	}
	name := d.Val()
	if _, err := caddy.GetModule(namespace + "." + name); err != nil {
		return "", nil, d.Errf("%s: %s is not a module of this Caddy; use one that is, %s", option, quoteName(name), examples)
	}
	mod, err := caddyfile.UnmarshalModule(d, namespace+"."+name)
	if err != nil && !strings.HasPrefix(err.Error(), option) {
		err = fmt.Errorf("%s %s: %w", option, name, err)
	}
	return name, mod, err
}

// errorAt gives an error of a block's check the file and line it is about.
// Such errors begin with the name of the option; what is missing has no line
// of its own, so that of the block is named.
func errorAt(given map[string]caddyfile.Token, block caddyfile.Token, err error) error {
	if err == nil {
		return nil
	}
	name, _, _ := strings.Cut(err.Error(), " ")
	if option, ok := given[strings.TrimSuffix(name, ":")]; ok {
		block = option
	}
	d := caddyfile.NewDispenser([]caddyfile.Token{block})
	d.Next()
	return d.WrapErr(err)
}

package sqlresolver

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// statement is a query as the driver takes it.
type statement struct {
	// text is the query with a numbered placeholder for each parameter.
	text string

	// params names the parameter behind each placeholder, from number 1 on. A
	// name used twice has two placeholders: PostgreSQL may then give each its
	// own type.
	params []string
}

// purpose is what a statement is for.
type purpose struct {
	verbs  []string // what it may begin with
	verb   string   // the same, in words
	params []string // what it may use, besides claims
	needs  []string // what it must use
}

var (
	finding   = purpose{reading, readingText, []string{"kc_id", "tenant", "issuer"}, []string{"kc_id", "tenant"}}
	enriching = purpose{reading, readingText, []string{"kc_id", "tenant", "issuer", "member_id"}, nil}
	creating  = purpose{
		[]string{"insert", "with", "select", "call", "merge", "replace"},
		"INSERT (or WITH, SELECT, CALL, MERGE, REPLACE), because it creates a member",
		[]string{"kc_id", "tenant", "issuer"},
		[]string{"kc_id", "tenant"},
	}

	reading     = []string{"select", "with", "values", "table"}
	readingText = "SELECT (or WITH, VALUES, TABLE), because it may only read"
)

// withinTenant is the same purpose in a database that belongs to one tenant,
// where nobody has to say which.
func (p purpose) withinTenant() purpose {
	p.needs = slices.DeleteFunc(slices.Clone(p.needs), func(name string) bool { return name == "tenant" })
	return p
}

// claimPrefix is what names of parameters begin with that are claims.
const claimPrefix = "claim."

// args returns what to bind to the statement's placeholders. What a token does
// not say is NULL.
func (s statement) args(q member.Query, id string, t types) ([]any, error) {
	args := make([]any, len(s.params))
	for i, name := range s.params {
		switch name {
		case "kc_id":
			args[i] = q.KCID
		case "tenant":
			args[i] = q.Tenant
		case "issuer":
			args[i] = q.Issuer
		case "member_id":
			args[i] = id
		default:
			value, present := q.Claims[strings.TrimPrefix(name, claimPrefix)]
			if !present {
				continue
			}
			var err error
			if args[i], err = t.bind(value); err != nil {
				return nil, ourErrorf("binding :%s: %w", name, err)
			}
		}
	}
	return args, nil
}

// notEncoded matches pgx's error for a value that cannot be sent as the type of
// its parameter. The rest of it quotes the value.
var notEncoded = regexp.MustCompile(`^failed to encode args\[(\d+)\]`)

// unbound names the parameter whose value the driver could not send.
func (s statement) unbound(err error) (string, bool) {
	match := notEncoded.FindStringSubmatch(err.Error())
	if match == nil {
		return "", false
	}
	i, err := strconv.Atoi(match[1])
	if err != nil || i >= len(s.params) {
		return "", false
	}
	return s.params[i], true
}

// claims returns the paths of the claims that statements use, each once and in
// an order that does not depend on theirs.
func claims(statements ...statement) []string {
	var paths []string
	for _, s := range statements {
		for _, name := range s.params {
			if path, isClaim := strings.CutPrefix(name, claimPrefix); isClaim {
				paths = append(paths, path)
			}
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// compile turns the query of a configuration into a statement, or says what is
// wrong with it.
func compile(query string, lx lexis, p purpose) (statement, error) {
	if !utf8.ValidString(query) || strings.ContainsRune(query, 0) {
		return statement{}, errors.New("it is not text in UTF-8")
	}
	s := scanner{in: query, lexis: lx, purpose: p}
	if err := s.scan(); err != nil {
		return statement{}, err
	}
	if !slices.Contains(p.verbs, strings.ToLower(s.firstWord)) {
		return statement{}, fmt.Errorf("it must begin with %s", p.verb)
	}
	for _, name := range p.needs {
		if !slices.Contains(s.used, name) {
			return statement{}, fmt.Errorf("it does not use :%s, so that it would do the same for everybody; add `where … = :%[1]s`, or insert :%[1]s", name)
		}
	}
	return statement{text: s.out.String(), params: s.used}, nil
}

package sqlresolver

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// lexis is what has to be known of a database's SQL to tell a parameter from
// what only looks like one.
//
// PostgreSQL: https://www.postgresql.org/docs/current/sql-syntax-lexical.html,
// MySQL: see [mysqlKind], SQLite: its tokenize.c and https://www.sqlite.org/lang_expr.html#varparam.
type lexis struct {
	placeholder    string // what the numbers of placeholders are put after
	unnumbered     bool   // a placeholder stands for the next value, without a number
	lineEnds       string // characters that end a -- comment
	nestedComments bool   // /* … /* … */ … */ is one comment
	escapeStrings  bool   // E'…' knows backslashes
	dollarQuotes   bool   // $tag$ … $tag$ is a string
	casts          bool   // a::type, and a[1:2]
	backtickNames  bool   // `name` is a name
	bracketNames   bool   // [name] is a name
	backslashes    bool   // '…' and "…" are strings that know backslashes
	hashComments   bool   // # begins a comment, -- only with a blank after it, and /*! is none
	ownParams      string // characters that begin parameters of the database's own
}

// scanner copies a query from in to out and replaces its parameters.
type scanner struct {
	lexis
	purpose
	in        string
	pos       int
	out       strings.Builder
	used      []string
	firstWord string
}

// scan reads the query token by token, as far as tokens matter.
func (s *scanner) scan() error {
	for s.pos < len(s.in) {
		rest := s.in[s.pos:]
		var err error
		switch c := rest[0]; {
		case isWord(c):
			err = s.word()
		case c == '\'', c == '"':
			err = s.quoted(c, s.backslashes)
		case c == '`' && s.backtickNames:
			err = s.quoted(c, false)
		case c == '[' && s.bracketNames:
			err = s.until("]", "a [name]")
		case c == '$' && s.dollarQuotes:
			err = s.dollar()
		case s.beginsLineComment(rest):
			s.lineComment()
		case s.hashComments && executable.MatchString(rest):
			return fmt.Errorf("it has a comment that is executed at character %d; write what it holds without the comment", s.pos+1)
		case strings.HasPrefix(rest, "/*"):
			err = s.blockComment()
		case c == ':':
			err = s.colon()
		case c == ';':
			if strings.TrimSpace(rest[1:]) != "" {
				return fmt.Errorf("it goes on after the semicolon at character %d; only a single statement is allowed", s.pos+1)
			}
			return nil
		case strings.IndexByte(s.ownParams, c) >= 0:
			err = s.ownParam()
		default:
			s.copy(1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copy takes the next n bytes over as they are.
func (s *scanner) copy(n int) {
	s.out.WriteString(s.in[s.pos : s.pos+n])
	s.pos += n
}

// word takes over a keyword, name or number, and the string that an E before
// it makes an escape string.
func (s *scanner) word() error {
	n := wordLen(s.in[s.pos:])
	word := s.in[s.pos : s.pos+n]
	if s.firstWord == "" {
		s.firstWord = word
	}
	s.copy(n)
	if s.escapeStrings && strings.EqualFold(word, "e") && strings.HasPrefix(s.in[s.pos:], "'") {
		return s.quoted('\'', true)
	}
	return nil
}

// quoted takes over a string or name in quotes, in which a doubled quote stands
// for a quote.
func (s *scanner) quoted(quote byte, backslashes bool) error {
	for i := s.pos + 1; i < len(s.in); i++ {
		switch {
		case s.in[i] == '\\' && backslashes:
			i++
		case s.in[i] != quote:
		case i+1 < len(s.in) && s.in[i+1] == quote:
			i++
		default:
			s.copy(i + 1 - s.pos)
			return nil
		}
	}
	return s.unended(fmt.Sprintf("a quote (%c)", quote))
}

// until takes over everything to the end of the next such text.
func (s *scanner) until(end, what string) error {
	i := strings.Index(s.in[s.pos+1:], end)
	if i < 0 {
		return s.unended(what)
	}
	s.copy(1 + i + len(end))
	return nil
}

// dollarTag matches what opens and closes a dollar-quoted string.
var dollarTag = regexp.MustCompile(`^\$(?:[A-Za-z_\x{80}-\x{10FFFF}][A-Za-z0-9_\x{80}-\x{10FFFF}]*)?\$`)

func (s *scanner) dollar() error {
	rest := s.in[s.pos:]
	if tag := dollarTag.FindString(rest); tag != "" {
		end := strings.Index(rest[len(tag):], tag)
		if end < 0 {
			return s.unended("a dollar-quoted string")
		}
		s.copy(len(tag) + end + len(tag))
		return nil
	}
	if len(rest) > 1 && isDigit(rest[1]) {
		return s.ownParam()
	}
	s.copy(1)
	return nil
}

// executable matches the beginning of what looks like a comment and is not one
// to MySQL or MariaDB.
var executable = regexp.MustCompile(`^/\*M?!`)

func (s *scanner) beginsLineComment(rest string) bool {
	if !s.hashComments {
		return strings.HasPrefix(rest, "--")
	}
	return rest[0] == '#' || strings.HasPrefix(rest, "--") && (len(rest) == 2 || rest[2] <= ' ' || rest[2] == 0x7f)
}

func (s *scanner) lineComment() {
	rest := s.in[s.pos:]
	if end := strings.IndexAny(rest, s.lineEnds); end >= 0 {
		s.copy(end)
		return
	}
	s.copy(len(rest))
}

func (s *scanner) blockComment() error {
	depth := 1
	for i := s.pos + 2; i+1 < len(s.in); i++ {
		switch two := s.in[i : i+2]; {
		case two == "/*" && s.nestedComments:
			depth++
			i++
		case two == "*/":
			depth--
			i++
		}
		if depth == 0 {
			s.copy(i + 1 - s.pos)
			return nil
		}
	}
	return s.unended("a comment")
}

// echoed matches what follows a parameter that is itself selected as one of
// the columns it is to be compared with.
var echoed = regexp.MustCompile(`(?i)^(?:\s*::\s*[a-z]\w*)?\s+as\s+["'\x60\[]?(kc_id|tenant|issuer)\b`)

// colon takes over a cast, a slice or an operator, or replaces a parameter.
func (s *scanner) colon() error {
	rest := s.in[s.pos:]
	if s.casts && strings.HasPrefix(rest, "::") {
		s.copy(2)
		return nil
	}
	if len(rest) == 1 || !isWord(rest[1]) || (s.casts && isDigit(rest[1])) {
		s.copy(1)
		return nil
	}
	name := rest[1 : 1+wordLen(rest[1:])]
	length := len(name)
	if name == "claim" {
		path, n := claimPath(rest[1+length:])
		if path == "" {
			return fmt.Errorf("it uses :claim at character %d without saying which; write :claim.email, or :claim.\"resource_access.my-app.roles\"", s.pos+1)
		}
		name, length = claimPrefix+path, length+n
	} else if !slices.Contains(s.params, name) {
		return fmt.Errorf("it uses :%s at character %d, which is not known; there are :%s and :claim.<path> (where the colon begins no parameter, put a blank after it)",
			name, s.pos+1, strings.Join(s.params, ", :"))
	}
	after := rest[1+length:]
	if match := echoed.FindStringSubmatch(after); match != nil {
		return fmt.Errorf("it selects :%s as %s, so that the row would always be the right one; select what the database says, such as a column or a constant, and in a subquery give it another name",
			name, strings.ToLower(match[1]))
	}
	if s.pos > 0 && isWord(s.in[s.pos-1]) {
		s.out.WriteByte(' ') // `limit:n` is two words, `limit$1` would be one
	}
	s.used = append(s.used, name)
	s.out.WriteString(s.placeholder)
	if !s.unnumbered {
		s.out.WriteString(strconv.Itoa(len(s.used)))
	}
	s.pos += 1 + length
	return nil
}

// claimPath reads the path after `:claim`: a dot and words joined by dots, or a
// dot and anything in double quotes. It returns how long the path is in the
// query, or "" if there is none.
func claimPath(text string) (path string, n int) {
	rest, ok := strings.CutPrefix(text, ".")
	if !ok {
		return "", 0
	}
	if quoted, ok := strings.CutPrefix(rest, `"`); ok {
		end := strings.IndexByte(quoted, '"')
		if end < 0 {
			return "", 0
		}
		return quoted[:end], end + len(`.""`)
	}
	for n < len(text) && text[n] == '.' {
		word := wordLen(text[n+1:])
		if word == 0 {
			break // the dot is none of the path's
		}
		n += 1 + word
	}
	return strings.TrimPrefix(text[:n], "."), n
}

func (s *scanner) ownParam() error {
	return fmt.Errorf("it has a parameter %q at character %d, which nothing is bound to; use :%s, :claim.<path>",
		s.in[s.pos:s.pos+1], s.pos+1, strings.Join(s.params, ", :"))
}

func (s *scanner) unended(what string) error {
	return fmt.Errorf("%s that begins at character %d does not end", what, s.pos+1)
}

// wordLen returns the length of the word that text begins with.
func wordLen(text string) int {
	n := 0
	for n < len(text) && (isWord(text[n]) || text[n] == '$') {
		n++
	}
	return n
}

// isWord tells whether a name, keyword or number may begin with c. Both
// databases take every character outside ASCII for a letter.
func isWord(c byte) bool {
	return c == '_' || isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= utf8.RuneSelf
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

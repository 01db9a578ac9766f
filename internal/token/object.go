package token

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strconv"
	"time"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// object is a JSON object as it came: its members in their order, values unread.
type object []member

type member struct {
	name  string
	value jsontext.Value // part of the text the object was read from
}

var (
	errNotObject = errors.New("not a JSON object")
	errTrailing  = errors.New("something follows the JSON object")
)

// parseObject reads one JSON object with nothing around it, not even space. Invalid
// UTF-8 and repeated names, at any depth, are errors (the latter
// [jsontext.ErrDuplicateName]).
func parseObject(text []byte) (object, error) {
	// The decoder would pass over space. Nobody writes any there, and libraries
	// differ in what they do with it.
	if !bytes.HasPrefix(text, []byte{'{'}) || !bytes.HasSuffix(text, []byte{'}'}) {
		return nil, errNotObject
	}
	// From a bytes.Buffer the decoder reads in place, without a copy.
	dec := jsontext.NewDecoder(bytes.NewBuffer(text))
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	members := make(object, 0, 24) // an access token of Keycloak has about twenty
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		spelt := name.String() // before the next read, which may reuse its buffer
		value, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		end := int(dec.InputOffset())
		members = append(members, member{spelt, text[end-len(value) : end : end]})
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errTrailing
	}
	return members, nil
}

// member returns the value of exactly that name.
func (o object) member(name string) (jsontext.Value, bool) {
	for i := range o {
		if o[i].name == name {
			return o[i].value, true
		}
	}
	return nil, false
}

// text returns the string of that name; ok is false for anything else.
func (o object) text(name string) (text string, ok bool) {
	value, present := o.member(name)
	if !present || value.Kind() != '"' {
		return "", false
	}
	unquoted, err := jsontext.AppendUnquote(nil, value)
	return string(unquoted), err == nil
}

// lookAlike returns the name of a member that differs from one of names in
// letter case only, by Unicode's rules ("SUB", "ſub"): what this package reads
// exactly, the application behind may read as the same claim.
func (o object) lookAlike(names map[string]string) (name string, found bool) {
	for i := range o {
		if plain(o[i].name) {
			continue // the common case: nothing to fold
		}
		if genuine, ok := names[fold(o[i].name)]; ok && genuine != o[i].name {
			return genuine, true
		}
	}
	return "", false
}

// plain reports whether folding could not change name into another of our names,
// all of which are lower-case ASCII.
func plain(name string) bool {
	for i := range len(name) {
		if c := name[i]; c >= 0x80 || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

// fold maps all names that are equal under Unicode simple folding to one: to the
// least rune of each orbit, so S for s, S and ſ.
func fold(name string) string {
	folded := make([]rune, 0, len(name))
	for _, r := range name {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		folded = append(folded, least)
	}
	return string(folded)
}

// folded maps the folded form of each name to the name.
func folded(names ...string) map[string]string {
	byFold := make(map[string]string, len(names))
	for _, name := range names {
		byFold[fold(name)] = name
	}
	return byFold
}

// numbersFit reports whether every number in a JSON text that has been read before can
// be held in a float64, which is what most who read the text after us do with numbers,
// even with those of members they do not know; 1e400 they refuse, or take for infinite.
func numbersFit(text []byte) bool {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"': // on to the end of the string
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case c == '-' || '0' <= c && c <= '9':
			begin := i
			for i+1 < len(text) && isOfNumber(text[i+1]) {
				i++
			}
			if !fitsFloat(text[begin : i+1]) {
				return false
			}
		}
	}
	return true
}

func isOfNumber(c byte) bool {
	return '0' <= c && c <= '9' || c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-'
}

func fitsFloat(number []byte) bool {
	const safe = 300 // digits: any number of so many fits
	if len(number) <= safe && !bytes.ContainsAny(number, "eE") {
		return true // the common case: times
	}
	_, err := strconv.ParseFloat(string(number), 64)
	return err == nil
}

// lastDate is the end of the year 9999, in seconds: beyond it, times cannot be
// written down, and arithmetic on them comes near its limits.
const lastDate = 253402300799

// date reads a NumericDate (RFC 7519 §2): a JSON number of seconds, whose fraction
// is dropped. Keycloak writes whole ones. Minus zero is none: libraries differ in it.
func date(value jsontext.Value) (time.Time, bool) {
	if value.Kind() != '0' {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseFloat(string(value), 64)
	if err != nil || math.Abs(seconds) > lastDate || seconds == 0 && math.Signbit(seconds) { // exact in a float64: far below 2⁵³
		return time.Time{}, false
	}
	return time.Unix(int64(math.Floor(seconds)), 0), true
}

// list reads a list of strings.
func list(value jsontext.Value) (texts []string, ok bool) {
	if value.Kind() != '[' {
		return nil, false
	}
	var texted []any
	if json.Unmarshal(value, &texted) != nil {
		return nil, false
	}
	texts = make([]string, 0, len(texted))
	for _, element := range texted {
		text, isText := element.(string)
		if !isText { // null included, which a []string would take for ""
			return nil, false
		}
		texts = append(texts, text)
	}
	return texts, true
}

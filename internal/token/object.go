package token

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"time"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// object is a JSON object as it came: its members in their order, values unread.
type object []member

// member refers to the text that its object was read from.
type member struct {
	name  []byte // unquoted
	value jsontext.Value
}

var (
	errNotObject = errors.New("not a JSON object")
	errNotList   = errors.New("not a JSON list of strings")
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
	read := objectReader{text: text}
	if err := json.Unmarshal(text, &read); err != nil { // on a decoder that was used before
		return nil, err
	}
	return read.members, nil
}

// objectReader reads the members of an object that is all of a text.
type objectReader struct {
	text    []byte
	members object
}

// UnmarshalJSONFrom implements [json.UnmarshalerFrom].
func (r *objectReader) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	const usual = 24 // an access token of Keycloak has about twenty
	r.members = make(object, 0, min(bytes.Count(r.text, []byte{':'}), usual))
	for dec.PeekKind() != '}' {
		name, err := dec.ReadValue()
		if err != nil {
			return err
		}
		quoted := r.last(dec, name)
		value, err := dec.ReadValue()
		if err != nil {
			return err
		}
		r.members = append(r.members, member{unquoted(quoted), r.last(dec, value)})
	}
	_, err := dec.ReadToken()
	return err
}

// last returns what the decoder has read last where it stands in the text: what the
// decoder returns is its own until it reads on.
func (r *objectReader) last(dec *jsontext.Decoder, read jsontext.Value) jsontext.Value {
	end := int(dec.InputOffset())
	return r.text[end-len(read) : end : end]
}

// unquoted returns what a JSON string that has been read before stands for: part of it
// or, where characters are escaped, a copy.
func unquoted(quoted jsontext.Value) []byte {
	if within := quoted[1 : len(quoted)-1]; bytes.IndexByte(within, '\\') < 0 {
		return within
	}
	text, _ := jsontext.AppendUnquote(nil, quoted) // cannot fail: the decoder took it
	return text
}

// member returns the value of exactly that name.
func (o object) member(name string) (jsontext.Value, bool) {
	for i := range o {
		if string(o[i].name) == name {
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
	return string(unquoted(value)), true
}

// lookAlike returns the name of a member that differs from one of names in
// letter case only, by Unicode's rules ("SUB", "ſub"): what this package reads
// exactly, the application behind may read as the same claim.
func (o object) lookAlike(names map[string]string) (name string, found bool) {
	for i := range o {
		if plain(o[i].name) {
			continue // the common case: nothing to fold
		}
		name := string(o[i].name)
		if genuine, ok := names[fold(name)]; ok && genuine != name {
			return genuine, true
		}
	}
	return "", false
}

// plain reports whether folding could not change name into another of our names,
// all of which are lower-case ASCII.
func plain(name []byte) bool {
	for _, c := range name {
		if c >= 0x80 || 'A' <= c && c <= 'Z' {
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

// list reads a list of strings, whose text has been read before.
func list(value jsontext.Value) (texts []string, ok bool) {
	if value.Kind() != '[' {
		return nil, false
	}
	var read listReader
	if json.Unmarshal(value, &read) != nil {
		return nil, false
	}
	return read, true
}

// listReader reads a list of strings. Null is none, which a []string would take for "".
type listReader []string

// UnmarshalJSONFrom implements [json.UnmarshalerFrom].
func (r *listReader) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	*r = make(listReader, 0, 4)
	for dec.PeekKind() == '"' {
		text, err := dec.ReadValue()
		if err != nil {
			return err
		}
		*r = append(*r, string(unquoted(text)))
	}
	if dec.PeekKind() != ']' {
		return errNotList
	}
	_, err := dec.ReadToken()
	return err
}

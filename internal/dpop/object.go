package dpop

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// object is a JSON object as it came: its members in their order, values unread.
type object []member

type member struct {
	name  string
	value jsontext.Value // part of the text the object was read from
}

// maxMembers bounds what an object of thousands of names could cost. A proof's have
// less than ten.
const maxMembers = 64

var (
	errNotObject = errors.New("not one JSON object")
	errTooMany   = errors.New("more names than anybody needs")
	errLookAlike = errors.New("a name differs from one in use in letter case only")
)

// parseObject reads one JSON object with nothing around it, not even space. Invalid
// UTF-8, repeated names at any depth, and names that differ from one of known in
// letter case only ("HTM", "ſub"), which other readers may take for it, are errors, and
// so are more than 64 names.
func parseObject(text []byte, known []string) (object, error) {
	if !bytes.HasPrefix(text, []byte{'{'}) || !bytes.HasSuffix(text, []byte{'}'}) {
		return nil, errNotObject
	}
	// From a bytes.Buffer the decoder reads in place, without a copy.
	dec := jsontext.NewDecoder(bytes.NewBuffer(text))
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	members := make(object, 0, 8)
	for dec.PeekKind() != '}' {
		if len(members) == maxMembers {
			return nil, errTooMany
		}
		token, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		name := token.String() // before the next read, which may reuse its buffer
		for _, genuine := range known {
			if name != genuine && strings.EqualFold(name, genuine) {
				return nil, errLookAlike
			}
		}
		value, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		end := int(dec.InputOffset())
		members = append(members, member{name, text[end-len(value) : end : end]})
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errNotObject
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

// has reports whether there is a member of any of those names, whatever its value.
func (o object) has(names ...string) bool {
	for _, name := range names {
		if _, present := o.member(name); present {
			return true
		}
	}
	return false
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

// textIfAny is text for what may be absent, though not of another type.
func (o object) textIfAny(name string) (text string, ok bool) {
	if !o.has(name) {
		return "", true
	}
	return o.text(name)
}

// lastDate is the end of the year 9999, in seconds: arithmetic on times far beyond it
// comes near its limits.
const lastDate = 253402300799

// date reads a NumericDate (RFC 7519 §2): a JSON number of seconds since 1970, whose
// fraction is dropped.
func (o object) date(name string) (time.Time, bool) {
	value, present := o.member(name)
	if !present || value.Kind() != '0' {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseFloat(string(value), 64)
	if err != nil || seconds < 0 || seconds > lastDate { // exact in a float64: far below 2⁵³
		return time.Time{}, false
	}
	return time.Unix(int64(seconds), 0), true
}

// dateIfAny is date for what may be absent, which it returns as the zero time. That is
// none of those date returns.
func (o object) dateIfAny(name string) (time.Time, bool) {
	if !o.has(name) {
		return time.Time{}, true
	}
	return o.date(name)
}

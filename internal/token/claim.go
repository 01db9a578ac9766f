package token

import (
	stdjson "encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// lazyClaims decodes all claims when the first of them is asked for: most
// requests need none beyond those Token has fields for.
type lazyClaims struct {
	once sync.Once
	text []byte
	all  map[string]any

	decoded atomic.Bool
	grow    func() // called when they are decoded; nil for nothing
}

func (l *lazyClaims) get() map[string]any {
	l.once.Do(func() {
		// The text has been parsed before, so this cannot fail.
		_ = json.Unmarshal(l.text, &l.all, json.WithUnmarshalers(exactNumbers))
		l.decoded.Store(true)
		if l.grow != nil {
			l.grow()
		}
	})
	return l.all
}

// exactNumbers keeps numbers as they are written: ids beyond 2⁵³ would lose digits
// in a float64.
var exactNumbers = json.UnmarshalFromFunc(func(dec *jsontext.Decoder, to *any) error {
	if dec.PeekKind() != '0' {
		return errors.ErrUnsupported // decode it as usual
	}
	number, err := dec.ReadValue()
	if err != nil {
		return err
	}
	*to = stdjson.Number(number)
	return nil
})

// writtenNumbers is the way back: to this JSON package such a number is a string.
var writtenNumbers = json.MarshalToFunc(func(enc *jsontext.Encoder, number stdjson.Number) error {
	return enc.WriteValue(jsontext.Value(number))
})

// Claim returns the claim at path, in which dots lead into objects and decimal
// numbers into lists: "organization.acme.id", "groups.0". Names may hold dots
// themselves: at each level the longest name that leads to a value is taken, so
// that "https://example.com/tenant" is found as it is.
//
// The value is nil, a string, bool, [stdjson.Number], []any or map[string]any,
// and must not be changed.
func (t *Token) Claim(path string) (any, bool) {
	return walk(t.claims.get(), path)
}

func walk(value any, path string) (any, bool) {
	if path == "" {
		return nil, false
	}
	// Longest first, and back to shorter ones if it leads nowhere.
	for end := len(path); end > 0; end = strings.LastIndexByte(path[:end], '.') {
		next, ok := step(value, path[:end])
		if !ok {
			continue
		}
		if end == len(path) {
			return next, true
		}
		if found, ok := walk(next, path[end+1:]); ok {
			return found, true
		}
	}
	return nil, false
}

func step(value any, name string) (any, bool) {
	switch within := value.(type) {
	case map[string]any:
		next, ok := within[name]
		return next, ok
	case []any:
		index, err := strconv.ParseUint(name, 10, 16)
		if err != nil || index >= uint64(len(within)) {
			return nil, false
		}
		return within[index], true
	}
	return nil, false
}

// Text renders a claim: a string as it is, numbers and booleans as JSON writes
// them, null as "", lists and objects as JSON with sorted names.
func Text(claim any) string {
	if text, ok := scalar(claim); ok {
		return text
	}
	text, err := json.Marshal(claim, json.Deterministic(true), json.WithMarshalers(writtenNumbers))
	if err != nil {
		return ""
	}
	return string(text)
}

// Texts renders a claim as a list: that of a list's scalars, that of one scalar,
// or an object's names, sorted, as Keycloak's organization claim has them. ok is
// false for null and for lists of anything else.
func Texts(claim any) (texts []string, ok bool) {
	switch of := claim.(type) {
	case nil:
		return nil, false
	case []any:
		texts = make([]string, 0, len(of))
		for _, element := range of {
			text, ok := scalar(element)
			if !ok || element == nil {
				return nil, false
			}
			texts = append(texts, text)
		}
		return texts, true
	case map[string]any:
		for name := range of {
			texts = append(texts, name)
		}
		slices.Sort(texts)
		return texts, true
	}
	text, ok := scalar(claim)
	return []string{text}, ok
}

func scalar(claim any) (string, bool) {
	switch of := claim.(type) {
	case nil:
		return "", true
	case string:
		return of, true
	case bool:
		return strconv.FormatBool(of), true
	case stdjson.Number:
		return of.String(), true
	}
	return "", false
}

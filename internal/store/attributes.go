package store

import (
	"maps"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// attributes writes and reads a member's attributes token by token: names in
// their order, so that equal members make equal text, and without the leniency
// of encoding/json, which replaces bytes that are not UTF-8.
type attributes map[string]member.Value

// MarshalJSONTo implements the interface of that name of the json package.
func (a attributes) MarshalJSONTo(out *jsontext.Encoder) error {
	if err := out.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if err := out.WriteToken(jsontext.String(name)); err != nil {
			return err
		}
		if err := writeValue(out, a[name]); err != nil {
			return err
		}
	}
	return out.WriteToken(jsontext.EndObject)
}

func writeValue(out *jsontext.Encoder, value member.Value) error {
	if !value.IsList() {
		return out.WriteToken(jsontext.String(value.Text()))
	}
	if err := out.WriteToken(jsontext.BeginArray); err != nil {
		return err
	}
	for _, item := range value.Strings() {
		if err := out.WriteToken(jsontext.String(item)); err != nil {
			return err
		}
	}
	return out.WriteToken(jsontext.EndArray)
}

// UnmarshalJSONFrom implements the interface of that name of the json package.
// The decoder refuses names that come twice.
func (a *attributes) UnmarshalJSONFrom(in *jsontext.Decoder) error {
	if err := expect(in, '{'); err != nil {
		return err
	}
	read := attributes{}
	for in.PeekKind() != '}' {
		if len(read) == MaxAttributes {
			return ErrInvalid
		}
		name, err := readString(in)
		if err != nil {
			return err
		}
		if read[name], err = readValue(in); err != nil {
			return err
		}
	}
	if len(read) > 0 {
		*a = read
	}
	return expect(in, '}')
}

func readValue(in *jsontext.Decoder) (member.Value, error) {
	if in.PeekKind() != '[' {
		text, err := readString(in)
		return member.Text(text), err
	}
	if err := expect(in, '['); err != nil {
		return member.Value{}, err
	}
	var items []string
	for in.PeekKind() != ']' {
		item, err := readString(in)
		if err != nil {
			return member.Value{}, err
		}
		items = append(items, item)
	}
	return member.List(items...), expect(in, ']')
}

func readString(in *jsontext.Decoder) (string, error) {
	token, err := in.ReadToken()
	if err != nil {
		return "", err
	}
	if token.Kind() != '"' {
		return "", ErrInvalid
	}
	return token.String(), nil
}

func expect(in *jsontext.Decoder, kind jsontext.Kind) error {
	token, err := in.ReadToken()
	if err != nil {
		return err
	}
	if token.Kind() != kind {
		return ErrInvalid
	}
	return nil
}

// text is a string that may be left out but may not be null, which would pass
// for an empty one.
type text string

// UnmarshalJSONFrom implements the interface of that name of the json package.
func (t *text) UnmarshalJSONFrom(in *jsontext.Decoder) error {
	s, err := readString(in)
	*t = text(s)
	return err
}

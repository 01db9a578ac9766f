package store

import (
	"maps"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// attributes writes a member's attributes token by token: names in their order, so
// that equal members make equal text, and without the leniency of encoding/json,
// which replaces bytes that are not UTF-8.
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

// text is a string that may not be null, which would pass for an empty one.
type text string

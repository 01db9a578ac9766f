package store

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// attributes writes a member's attributes token by token: names in their order, so
// that equal members make equal text, and without the leniency of encoding/json,
// which replaces bytes that are not UTF-8.
type attributes struct {
	of   *member.Member          // to write
	read map[string]member.Value // nil if there are none
}

// IsZero tells that there are none, which is not written.
func (a *attributes) IsZero() bool {
	for range a.of.AllAttributes() {
		return false
	}
	return true
}

// MarshalJSONTo implements the interface of that name of the json package.
func (a *attributes) MarshalJSONTo(out *jsontext.Encoder) error {
	if err := out.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	count := 0
	for name, value := range a.of.AllAttributes() {
		if count++; count > MaxAttributes {
			return ErrInvalid
		}
		if err := out.WriteToken(jsontext.String(name)); err != nil {
			return err
		}
		if err := writeValue(out, value); err != nil {
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
	for item := range value.All() {
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

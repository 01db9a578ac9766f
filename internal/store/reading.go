package store

import (
	"bytes"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// reading is an envelope that is read. The texts in it are parts of the one text that
// was read, which is kept as long as one of them is: who keeps an entry copies what
// is worth keeping, as [sharedTexts.lean] does.
//
// It is read value by value, because reflection and a copy of each text would cost
// more than reading does.
type reading struct {
	envelope
	source string // what is read
	member memberEnvelope
	active bool
	id     text
}

// UnmarshalJSONFrom implements the interface of that name of the json package. The
// decoder refuses names that come twice, and text that is not UTF-8.
func (r *reading) UnmarshalJSONFrom(in *jsontext.Decoder) error {
	return r.object(in, func(name []byte) error {
		switch string(name) {
		case "v":
			return r.number(in, &r.Version)
		case "gen":
			return r.text(in, &r.Gen)
		case "pos":
			return r.text(in, &r.Pos)
		case "event":
			return r.text(in, &r.Event)
		case "tenant":
			return r.text(in, &r.Tenant)
		case "issuer":
			return r.text(in, &r.Issuer)
		case "kc_id":
			return r.text(in, &r.KCID)
		case "claims":
			return r.text(in, &r.Claims)
		case "loaded_at":
			return r.number(in, &r.LoadedAt)
		case "expires":
			return r.number(in, &r.Expires)
		case "keep":
			return r.number(in, &r.Keep)
		case "member":
			r.Member = &r.member
			return r.readMember(in)
		default:
			return ErrInvalid
		}
	})
}

func (r *reading) readMember(in *jsontext.Decoder) error {
	m := r.Member
	return r.object(in, func(name []byte) error {
		switch string(name) {
		case "kc_id":
			return r.text(in, &m.KCID)
		case "tenant":
			return r.text(in, &m.Tenant)
		case "issuer":
			return r.text(in, &m.Issuer)
		case "active":
			m.Active = &r.active
			return r.truth(in, m.Active)
		case "id":
			m.ID = &r.id
			return r.text(in, m.ID)
		case "attributes":
			return r.attributes(in)
		default:
			return ErrInvalid
		}
	})
}

// attributes reads those of a member. No attributes are none, not an empty map.
func (r *reading) attributes(in *jsontext.Decoder) error {
	if err := expect(in, '{'); err != nil {
		return err
	}
	for in.PeekKind() != '}' {
		if len(r.Member.Attributes.read) == MaxAttributes {
			return ErrInvalid
		}
		name, err := r.string(in)
		if err != nil {
			return err
		}
		if r.Member.Attributes.read == nil {
			r.Member.Attributes.read = make(map[string]member.Value)
		}
		if r.Member.Attributes.read[name], err = r.value(in); err != nil {
			return err
		}
	}
	return expect(in, '}')
}

func (r *reading) value(in *jsontext.Decoder) (member.Value, error) {
	if in.PeekKind() != '[' {
		text, err := r.string(in)
		return member.Text(text), err
	}
	if err := expect(in, '['); err != nil {
		return member.Value{}, err
	}
	var few [8]string
	items := few[:0]
	for in.PeekKind() != ']' {
		item, err := r.string(in)
		if err != nil {
			return member.Value{}, err
		}
		items = append(items, item)
	}
	return member.List(items...), expect(in, ']')
}

// object reads an object, each of whose values is read by whom its name is given to.
func (r *reading) object(in *jsontext.Decoder, field func(name []byte) error) error {
	if err := expect(in, '{'); err != nil {
		return err
	}
	for in.PeekKind() != '}' {
		name, err := in.ReadValue()
		if err != nil {
			return err
		}
		if name, err = unquoted(name); err != nil {
			return err
		}
		if err := field(name); err != nil {
			return err
		}
	}
	return expect(in, '}')
}

func (r *reading) text(in *jsontext.Decoder, into *text) error {
	s, err := r.string(in)
	*into = text(s)
	return err
}

// string reads a string, and nothing else.
func (r *reading) string(in *jsontext.Decoder) (string, error) {
	value, err := in.ReadValue()
	if err != nil {
		return "", err
	}
	end := int(in.InputOffset()) - 1
	plain, err := unquoted(value)
	if err != nil {
		return "", err
	}
	if len(plain) == len(value)-2 {
		return r.source[end-len(plain) : end], nil
	}
	return string(plain), nil
}

// unquoted returns what a string says, in the same bytes if it is without escapes.
// No escape is as short as what it stands for.
func unquoted(value jsontext.Value) ([]byte, error) {
	if value.Kind() != '"' {
		return nil, ErrInvalid
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return value[1 : len(value)-1], nil
	}
	return jsontext.AppendUnquote(nil, value)
}

// number reads a whole number, and nothing else.
func (r *reading) number(in *jsontext.Decoder, into *int64) error {
	value, err := in.ReadValue()
	if err != nil {
		return err
	}
	if value.Kind() != '0' {
		return ErrInvalid
	}
	*into, err = strconv.ParseInt(string(value), 10, 64)
	return err
}

func (r *reading) truth(in *jsontext.Decoder, into *bool) error {
	value, err := in.ReadValue()
	if err != nil {
		return err
	}
	switch value.Kind() {
	case 't':
		*into = true
	case 'f':
		*into = false
	default:
		return ErrInvalid
	}
	return nil
}

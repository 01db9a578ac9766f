package sqlresolver

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// types reads what a driver returns for a column. Errors name the column and
// never its value.
type types struct {
	// array splits the text of an array, if the database has such a type.
	// Array types are those whose name begins with an underscore then.
	array func(text string) ([]string, error)

	// normal turns a value of the driver's into one of those that are read, if
	// the driver has others.
	normal func(c column, v any) any
}

// bind returns how a claim is given to the driver: a text as it is, a list as
// an array, or as JSON where the database has no arrays.
func (t types) bind(v member.Value) (any, error) {
	if !v.IsList() {
		return v.Text(), nil
	}
	if t.array != nil {
		return v.Strings(), nil
	}
	text, err := json.Marshal(v)
	return string(text), err
}

// rolesAttribute is the attribute that is always a list.
const rolesAttribute = "roles"

// identifier reads a column that is compared with the request or names the
// member, and hence must say something.
func (t types) identifier(c column, v any) (string, error) {
	switch c.typ {
	case "JSON", "JSONB":
		return "", ourErrorf("column %s has the type %s; select it as text", c.name, c.typ)
	}
	switch v := v.(type) {
	case nil:
		return "", ourErrorf("column %s is NULL; leave such rows out in the query, with `where … is not null`", c.name)
	case int64:
		return strconv.FormatInt(v, 10), nil
	case string:
		if t.isArray(c) {
			return "", ourErrorf("column %s is an array; select one of its elements", c.name)
		}
		if v == "" {
			return "", ourErrorf("column %s is empty; leave such rows out in the query", c.name)
		}
		return v, nil
	default:
		return "", ourErrorf("column %s must be text, a uuid or an integer; convert it in the query", c.name)
	}
}

// active reads the column that says whether the member may use the tenant.
func (t types) active(c column, v any) (bool, error) {
	switch v := v.(type) {
	case nil:
		return false, nil
	case bool:
		return v, nil
	case int64:
		if v == 0 || v == 1 {
			return v == 1, nil
		}
	case string:
		switch v {
		case "t", "true", "1":
			return true, nil
		case "f", "false", "0":
			return false, nil
		}
	}
	return false, ourErrorf("column %s is neither a boolean, 0 or 1, nor one of the texts t, f, true, false; "+
		"select a condition, such as `status = 'enabled' as %[1]s`", c.name)
}

// attribute reads any other column. It reports whether there is a value.
func (t types) attribute(c column, v any) (member.Value, bool, error) {
	value, present, err := t.value(c, v)
	if err != nil || !present || c.name != rolesAttribute || value.IsList() {
		return value, present, err
	}
	switch text := value.Text(); {
	case text == "":
		return member.List(), true, nil
	case strings.HasPrefix(text, "["):
		return listOf(c, text)
	default:
		return member.List(text), true, nil
	}
}

func (t types) value(c column, v any) (member.Value, bool, error) {
	switch raw := v.(type) {
	case nil:
		return member.Value{}, false, nil
	case []byte:
		return member.Value{}, false, ourErrorf("column %s is binary; select it as text, with encode or hex", c.name)
	case string:
		switch {
		case c.typ == "JSON" || c.typ == "JSONB":
			return jsonValue(c, raw)
		case t.isArray(c):
			items, err := t.array(raw)
			if err != nil {
				return member.Value{}, false, ourErrorf("column %s %w", c.name, err)
			}
			return member.List(items...), true, nil
		case c.isList:
			return listOf(c, raw)
		}
	}
	if c.isList {
		return member.Value{}, false, ourErrorf("column %s is called a list but is neither an array nor JSON; name it without brackets", c.name)
	}
	text, ok := scalar(c, v)
	if !ok {
		return member.Value{}, false, ourErrorf("column %s has a type that cannot be read; select it as text", c.name)
	}
	return member.Text(text), true, nil
}

func (t types) isArray(c column) bool {
	return t.array != nil && strings.HasPrefix(c.typ, "_")
}

// scalar returns the text of a single value.
func scalar(c column, v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case int64:
		if (c.typ == "BOOLEAN" || c.typ == "BOOL") && (v == 0 || v == 1) {
			return strconv.FormatBool(v == 1), true // SQLite has only numbers
		}
		return strconv.FormatInt(v, 10), true
	case float64:
		bits := 64
		if c.typ == "FLOAT4" {
			bits = 32
		}
		format := byte('f')
		if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
			format = 'e' // as in JSON
		}
		return strconv.FormatFloat(v, format, -1, bits), true
	case time.Time:
		v = v.UTC()
		if c.typ == "DATE" && v.Equal(v.Truncate(24*time.Hour)) {
			return v.Format(time.DateOnly), true
		}
		return v.Format(time.RFC3339Nano), true
	default:
		return "", false
	}
}

// jsonValue reads a column of JSON: a scalar, or a list of scalars.
func jsonValue(c column, text string) (member.Value, bool, error) {
	decoded, err := decodeJSON(text)
	if err != nil {
		return member.Value{}, false, ourErrorf("column %s holds something that is not JSON", c.name)
	}
	if _, isArray := decoded.([]any); isArray || c.isList {
		return listOf(c, text)
	}
	if decoded == nil {
		return member.Value{}, false, nil
	}
	single, ok := jsonScalar(decoded)
	if !ok {
		return member.Value{}, false, ourErrorf("column %s is a JSON object; select one of its members, or all of it as text", c.name)
	}
	return member.Text(single), true, nil
}

// listOf reads a JSON array of scalars.
func listOf(c column, text string) (member.Value, bool, error) {
	decoded, err := decodeJSON(text)
	array, ok := decoded.([]any)
	if err != nil || !ok {
		return member.Value{}, false, ourErrorf("column %s is to be a list but holds no JSON array; build one in the query, with json_group_array, say", c.name)
	}
	items := make([]string, len(array))
	for i, item := range array {
		if items[i], ok = jsonScalar(item); !ok {
			return member.Value{}, false, ourErrorf("column %s is a JSON array of more than texts, numbers and booleans; leave null and nested values out in the query", c.name)
		}
	}
	return member.List(items...), true, nil
}

func jsonScalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case json.Number:
		return v.String(), true
	default:
		return "", false
	}
}

// decodeJSON decodes a single value and keeps numbers as they are written.
func decodeJSON(text string) (any, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("data after the value")
	}
	return v, nil
}

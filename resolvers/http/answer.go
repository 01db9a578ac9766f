package httpresolver

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/internal/options"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/internal/remote"
)

// maxAnswer bounds the body of an answer, in bytes.
const maxAnswer = 64 << 10

// required are the names without which an answer says nothing.
var required = []string{"kc_id", "tenant", "active", "id"}

// readMember reads the record out of an answer. Errors name members of the object
// and never their values.
func readMember(resp *http.Response) (*member.Member, error) {
	if !remote.IsJSON(resp) {
		return nil, errors.New("the answer is not of Content-Type application/json")
	}
	text, err := remote.ReadBody(resp, maxAnswer)
	if err != nil {
		return nil, err
	}
	object, err := remote.ReadObject(text)
	if err != nil {
		return nil, err
	}
	for _, name := range required {
		if _, present := object[name]; !present {
			return nil, fmt.Errorf("the answer has no %s; add it, in lower case", name)
		}
	}
	m := &member.Member{Attributes: make(map[string]member.Value, len(object))}
	for name, value := range object {
		if err := setField(m, name, value); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func setField(m *member.Member, name string, value jsontext.Value) (err error) {
	switch name {
	case "kc_id":
		m.KCID, err = identifier(name, value)
	case "tenant":
		m.Tenant, err = identifier(name, value)
	case "issuer":
		m.Issuer, err = identifier(name, value)
	case "id":
		m.ID, err = identifier(name, value)
	case "active":
		switch value.Kind() {
		case 't', 'f':
			m.Active = value.Kind() == 't'
		case 'n': // not known to be active
		default:
			err = errors.New("the answer's active is neither true, false nor null")
		}
	default:
		if err := options.CheckAttribute(name); err != nil {
			return fmt.Errorf("the answer has a name that is none of an attribute: %w", err)
		}
		attribute, present, err := attribute(name, value)
		if err != nil {
			return err
		}
		if present {
			m.Attributes[name] = attribute
		}
	}
	return err
}

var integer = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)

// identifier reads what is compared with the request or names the member, and
// hence must say something.
func identifier(name string, value jsontext.Value) (string, error) {
	text, ok := scalar(value)
	if !ok || value.Kind() != '"' && !integer.MatchString(text) {
		return "", fmt.Errorf("the answer's %s is neither a text nor an integer", name)
	}
	if text == "" {
		return "", fmt.Errorf("the answer's %s is empty", name)
	}
	return text, nil
}

// attribute reads any other value. It reports whether there is one.
func attribute(name string, value jsontext.Value) (member.Value, bool, error) {
	switch value.Kind() {
	case 'n':
		return member.Value{}, false, nil
	case '{':
		return member.Value{}, false, fmt.Errorf("the answer's %s is an object; put its members beside it, or leave it out", name)
	case '[':
		items, err := list(name, value)
		return member.List(items...), err == nil, err
	default:
		text, _ := scalar(value)
		switch {
		case name != options.RolesAttribute:
			return member.Text(text), true, nil
		case text == "":
			return member.List(), true, nil
		}
		return member.List(text), true, nil
	}
}

func list(name string, value jsontext.Value) ([]string, error) {
	var elements []jsontext.Value
	if err := json.Unmarshal(value, &elements); err != nil {
		return nil, fmt.Errorf("the answer's %s is not a list", name)
	}
	items := make([]string, len(elements))
	for i, element := range elements {
		var ok bool
		if items[i], ok = scalar(element); !ok {
			return nil, fmt.Errorf("the answer's %s is a list of more than texts, numbers and booleans; leave null and nested values out", name)
		}
	}
	return items, nil
}

// scalar returns the text of a text, or of a number or boolean as it is written.
func scalar(value jsontext.Value) (string, bool) {
	if value.Kind() == '"' {
		var text string
		err := json.Unmarshal(value, &text)
		return text, err == nil
	}
	return string(value), slices.Contains([]jsontext.Kind{'0', 't', 'f'}, value.Kind())
}

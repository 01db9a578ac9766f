package sqlresolver

import (
	"database/sql"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// maxRow bounds the bytes of a row, names of attributes included.
const maxRow = 32 << 10

// column is one column of the query's result.
type column struct {
	name   string // that of the attribute, without brackets
	typ    string // the database's name of the type, in upper case; "" if not known
	isList bool   // the name had brackets
}

// required are the columns without which a row says nothing.
var required = []string{"kc_id", "tenant", "active", "id"}

// remedy says how to add a required column.
var remedy = map[string]string{
	"kc_id":  "select the user's Keycloak id `as kc_id`",
	"tenant": "select the row's tenant `as tenant`",
	"active": "select whether the member may use the tenant now `as active`, or `true as active`",
	"id":     "select your application's id of the member `as id`",
}

// attributeName is what an attribute may be called: it becomes part of the
// name of a placeholder.
var attributeName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,62}$`)

// columnsOf reads the names and types of the result's columns, and refuses
// those that cannot be told apart.
func columnsOf(rows *sql.Rows) ([]column, error) {
	found, err := rows.ColumnTypes()
	if err != nil {
		return nil, err
	}
	columns := make([]column, len(found))
	seen := make(map[string]bool, len(found))
	for i, c := range found {
		name, isList := strings.CutSuffix(c.Name(), "[]")
		if !attributeName.MatchString(name) {
			return nil, ourErrorf("column %d of the query has no usable name; add `as name`, of letters, digits, - and _", i+1)
		}
		if seen[name] {
			return nil, ourErrorf("the query has two columns called %q; rename one of them with `as`", name)
		}
		seen[name] = true
		columns[i] = column{name: name, typ: strings.ToUpper(c.DatabaseTypeName()), isList: isList}
	}
	return columns, nil
}

// checkRequired refuses columns that lack one without which a row says nothing.
func checkRequired(columns []column) error {
	for _, name := range slices.Concat(required, []string{"issuer"}) {
		found := false
		for _, c := range columns {
			found = found || c.name == name
			if c.name != name && strings.EqualFold(c.name, name) {
				return ourErrorf("the query has a column called %q; write `as %s`, in lower case", c.name, name)
			}
		}
		if !found && name != "issuer" {
			return ourErrorf("the query has no column %s; %s", name, remedy[name])
		}
	}
	return nil
}

// scan reads the row that rows stands at.
func scan(rows *sql.Rows, columns int) ([]any, error) {
	values := make([]any, columns)
	targets := make([]any, columns)
	for i := range values {
		targets[i] = &values[i]
	}
	return values, rows.Scan(targets...)
}

// readMember reads the row that rows stands at as a member.
func readMember(rows *sql.Rows, columns []column, t types) (*member.Member, error) {
	values, err := scan(rows, len(columns))
	if err != nil {
		return nil, err
	}
	m := &member.Member{Attributes: make(map[string]member.Value)}
	for i, c := range columns {
		if values[i], err = t.prepare(c, values[i]); err != nil {
			return nil, err
		}
		if err := t.setField(m, c, values[i]); err != nil {
			return nil, err
		}
	}
	return m, checkSize(m)
}

// checkSize refuses a member that is too large to be worth keeping.
func checkSize(m *member.Member) error {
	size := len(m.KCID) + len(m.Tenant) + len(m.Issuer) + len(m.ID)
	for name, value := range m.Attributes {
		size += len(name) + value.Size()
	}
	if size > maxRow {
		return ourErrorf("the row has %d bytes, more than %d; select only the columns that are needed", size, maxRow)
	}
	return nil
}

// prepare turns a value of the driver's into one that can be read.
func (t types) prepare(c column, v any) (any, error) {
	if t.normal != nil {
		v = t.normal(c, v)
	}
	if raw, isBytes := v.([]byte); isBytes && (c.typ == "JSON" || c.typ == "JSONB") {
		v = string(raw) // as drivers return it
	}
	if text, isText := v.(string); isText && !utf8.ValidString(text) {
		// in JSON it would become other text, perhaps that of another user
		return nil, ourErrorf("column %s holds text that is not UTF-8; convert it in the query", c.name)
	}
	return v, nil
}

// setField puts the value of one column into the member.
func (t types) setField(m *member.Member, c column, v any) error {
	if c.isList && (slices.Contains(required, c.name) || c.name == "issuer") {
		return ourErrorf("column %s must not be a list; name it without brackets", c.name)
	}
	var err error
	switch c.name {
	case "kc_id":
		m.KCID, err = t.identifier(c, v)
	case "tenant":
		m.Tenant, err = t.identifier(c, v)
	case "issuer":
		m.Issuer, err = t.identifier(c, v)
	case "id":
		m.ID, err = t.identifier(c, v)
	case "active":
		m.Active, err = t.active(c, v)
	default:
		var value member.Value
		var present bool
		if value, present, err = t.attribute(c, v); present && err == nil {
			m.Attributes[c.name] = value
		}
	}
	return err
}

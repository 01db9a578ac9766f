package sqlresolver

import (
	"context"
	"database/sql"
	"slices"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// maxProfileRows bounds the rows of a profile.
const maxProfileRows = 1000

// enrich puts the profile's query and adds what it finds to the member, which
// nobody else has seen yet.
func (d *database) enrich(ctx context.Context, st statement, q member.Query, m *member.Member) error {
	var lists map[string]member.Value
	err := d.retry(ctx, st, q, m.ID, func(ctx context.Context, args []any) (err error) {
		lists, err = d.profile(ctx, d, st.text, args)
		return err
	})
	if err != nil {
		return err
	}
	return addLists(m, lists)
}

// addLists makes the profile's lists attributes of the member.
func addLists(m *member.Member, lists map[string]member.Value) error {
	for name, list := range lists {
		if _, twice := m.Attributes[name]; twice {
			return ourErrorf("profile: it has a column %s, as the query has; leave it out of one of them", name)
		}
		m.Attributes[name] = list
	}
	return checkSize(m)
}

// profile reads the rows of a profile: each column becomes the list of what
// stands in it, each value once, in the order of its first row. NULL is
// nothing, and lists are taken apart.
func (d *database) profile(ctx context.Context, via querier, text string, args []any) (map[string]member.Value, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rows, err := via.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // its errors are those of rows.Err
	lists, err := readLists(rows, d.source.types(), isCheck(ctx))
	if err != nil {
		cancel() // or closing the rows would read the rest of them
	}
	return lists, err
}

func readLists(rows *sql.Rows, t types, check bool) (map[string]member.Value, error) {
	columns, err := columnsOf(rows)
	if err != nil {
		return nil, err
	}
	for _, c := range columns {
		if slices.Contains(required, c.name) || c.name == "issuer" {
			return nil, ourErrorf("profile: column %s is what the query decides; leave it out", c.name)
		}
	}
	if check {
		if err := checkTypes(columns); err != nil {
			return nil, err
		}
	}
	items := make([][]string, len(columns))
	size := 0
	for n := 0; rows.Next(); n++ {
		if n >= maxProfileRows {
			return nil, ourErrorf("profile: it finds more than %d rows; select fewer, or lists of them", maxProfileRows)
		}
		values, err := scan(rows, len(columns))
		if err != nil {
			return nil, err
		}
		for i, c := range columns {
			v, err := t.prepare(c, values[i])
			if err != nil {
				return nil, err
			}
			value, present, err := t.attribute(c, v)
			if err != nil {
				return nil, err
			}
			if !present {
				continue
			}
			for _, item := range value.Strings() {
				if !slices.Contains(items[i], item) {
					items[i] = append(items[i], item)
					size += len(item)
				}
			}
		}
		if size > maxRow {
			return nil, ourErrorf("profile: it finds more than %d bytes; select only what is needed", maxRow)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	lists := make(map[string]member.Value, len(columns))
	for i, c := range columns {
		lists[c.name] = member.List(items[i]...)
	}
	return lists, nil
}

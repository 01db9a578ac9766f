package sqlresolver

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// errBroken makes database/sql give up a connection.
var errBroken = driver.ErrBadConn

// nobody is a user who does not exist. What names it fits columns of text,
// integers and uuids.
var nobody = member.Query{KCID: "00000000-0000-0000-0000-000000000000", Tenant: "0", Issuer: "https://nobody.invalid"}

type checkKey struct{}

func isCheck(ctx context.Context) bool { return ctx.Value(checkKey{}) != nil }

// Check implements [member.Checker]. It puts the query and that of the profile
// for a user who does not exist, looks at the types of their columns, has the
// statement of `on_unknown` prepared and not run, and listens for a moment.
// With {tenant} in the address it cannot do more than reach the server.
func (r *Resolver) Check(ctx context.Context) error {
	ctx = context.WithValue(ctx, checkKey{}, true)
	errs := []error{wrap("query", r.checkFind(ctx))}
	if r.plan.profile.text != "" {
		errs = append(errs, wrap("profile", r.checkProfile(ctx)))
	}
	if r.plan.create.text != "" {
		errs = append(errs, wrap("on_unknown", r.checkCreate(ctx)))
	}
	if r.listener != nil {
		conn, err := r.listener.connect(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("invalidate_on_notify: %s", explainListen(err)))
		} else {
			_ = conn.Close(ctx) // it has served
		}
	}
	return errors.Join(errs...)
}

// wrap names the option that an error is about. An unknown user is none.
func wrap(option string, err error) error {
	if err == nil || errors.Is(err, member.ErrUnknown) {
		return nil
	}
	return fmt.Errorf("%s: %w", option, err)
}

func (r *Resolver) checkFind(ctx context.Context) error {
	db, err := r.place.of(nobody.Tenant)
	if err != nil {
		return err
	}
	_, err = db.find(ctx, r.plan.find, nobody)
	r.place.learn(nobody.Tenant, db, err)
	if err == nil {
		return errors.New("it finds a member for a user who does not exist; compare kc_id with :kc_id, and tenant with :tenant")
	}
	return err
}

// checkProfile tries ids that fit columns of text, integers and uuids.
func (r *Resolver) checkProfile(ctx context.Context) error {
	db, err := r.place.of(nobody.Tenant)
	if err != nil {
		return err
	}
	for _, id := range []string{"0", nobody.KCID} {
		m := &member.Member{ID: id, Attributes: make(map[string]member.Value)}
		if err = db.enrich(ctx, r.plan.profile, nobody, m); !errors.Is(err, errImpossible) {
			break
		}
	}
	r.place.learn(nobody.Tenant, db, err)
	return err
}

func (r *Resolver) checkCreate(ctx context.Context) error {
	db, err := r.writes.of(nobody.Tenant)
	if err != nil {
		return err
	}
	statement, err := db.db.PrepareContext(ctx, r.plan.create.text)
	if err == nil {
		return statement.Close() //nolint:sqlclosecheck // it is closed at once
	}
	err = db.told(ctx, r.plan.create, nobody, nil, err)
	r.writes.learn(nobody.Tenant, db, err)
	return err
}

// Types that a column cannot have, by the databases' own names.
var (
	binaryTypes   = []string{"BYTEA", "BLOB", "TINYBLOB", "MEDIUMBLOB", "LONGBLOB", "BINARY", "VARBINARY", "GEOMETRY"}
	fractionTypes = []string{"FLOAT4", "FLOAT8", "FLOAT", "DOUBLE", "REAL"}
	timeTypes     = []string{"DATE", "TIME", "DATETIME", "TIMESTAMP", "TIMESTAMPTZ"}
	otherTypes    = []string{"BOOL", "BOOLEAN", "JSON", "JSONB", "BIT"}
)

// checkTypes refuses columns that cannot be read, as far as the statement tells
// what their types are.
func checkTypes(columns []column) error {
	var errs []error
	for _, c := range columns {
		unreadable, must := binaryTypes, "text; convert it in the query, with encode or hex"
		switch {
		case c.name == "active":
			unreadable = slices.Concat(binaryTypes, fractionTypes, timeTypes, []string{"JSON", "JSONB", "UUID"})
			must = "a boolean, an integer or text; select a condition, such as `deleted_at is null as active`"
		case slices.Contains(required, c.name) || c.name == "issuer":
			unreadable = slices.Concat(binaryTypes, fractionTypes, timeTypes, otherTypes)
			must = "text, a uuid or an integer; convert it in the query"
		}
		single := c.name == "active" || slices.Contains(required, c.name) || c.name == "issuer"
		if slices.Contains(unreadable, c.typ) || single && strings.HasPrefix(c.typ, "_") {
			errs = append(errs, ourErrorf("column %s has the type %s and must be %s", c.name, c.typ, must))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return ourError{errors.Join(errs...)}
}

package sqlresolver

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// maxWriters bounds the connections of `on_unknown`: each user needs it once.
const maxWriters = 2

// plan is all that is asked for one user.
type plan struct {
	find    statement
	profile statement // its text is empty if there is none
	create  statement // likewise
}

// createMember runs the statement of `on_unknown` for a user who is not there
// and finds the member that it has created, all in one transaction. Users are
// created one after the other if they are the same: whoever comes second, on
// whatever node, finds the member of the first.
func (d *database) createMember(ctx context.Context, p plan, q member.Query) (*member.Member, error) {
	m, err := d.tryCreate(ctx, p, q)
	if err == nil || isOurs(err) {
		return m, err
	}
	if d.source.duplicate(err) {
		// the application itself may have been faster
		if m, again := d.ask(ctx, p.find, p.profile, q); again == nil {
			return m, nil
		}
	}
	return nil, fmt.Errorf("on_unknown: %w", d.told(ctx, p.create, q, nil, err))
}

func (d *database) tryCreate(ctx context.Context, p plan, q member.Query) (_ *member.Member, err error) {
	conn, err := d.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // gives it back to the pool
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // does nothing once it is committed
	unlock, err := d.lockUser(ctx, conn, tx, q)
	if err != nil {
		return nil, err
	}
	defer unlock()

	m, err := d.findIn(ctx, tx, p.find, q)
	if errors.Is(err, member.ErrUnknown) && !errors.Is(err, errImpossible) {
		if m, err = d.insertIn(ctx, tx, p, q); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	if p.profile.text != "" && m.Active {
		args, err := p.profile.args(q, m.ID, d.source.types())
		if err != nil {
			return nil, err
		}
		lists, err := d.profile(ctx, tx, p.profile.text, args)
		if err != nil {
			return nil, err
		}
		if err := addLists(m, lists); err != nil {
			return nil, err
		}
	}
	return m, tx.Commit()
}

// findIn puts the query within the transaction.
func (d *database) findIn(ctx context.Context, tx *sql.Tx, find statement, q member.Query) (*member.Member, error) {
	args, err := find.args(q, "", d.source.types())
	if err != nil {
		return nil, err
	}
	return d.attempt(ctx, tx, find.text, args, q)
}

// insertIn runs the statement and puts the query once more. A statement that
// created no member, because of a condition in it, leaves the user unknown.
func (d *database) insertIn(ctx context.Context, tx *sql.Tx, p plan, q member.Query) (*member.Member, error) {
	args, err := p.create.args(q, "", d.source.types())
	if err != nil {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, p.create.text, args...); err != nil {
		return nil, err
	}
	m, err := d.findIn(ctx, tx, p.find, q)
	if err == nil && (m.KCID != q.KCID || m.Tenant != q.Tenant) {
		return nil, ourErrorf("on_unknown: the query finds another member than was to be created; insert :kc_id and :tenant as they are")
	}
	return m, err
}

// lockUser keeps others from creating the same member until the transaction
// ends. The returned function must be called after that.
func (d *database) lockUser(ctx context.Context, conn *sql.Conn, tx *sql.Tx, q member.Query) (unlock func(), err error) {
	take, giveBack := d.source.lock()
	if take == "" {
		return func() {}, nil
	}
	digest := sha256.Sum256([]byte(q.Tenant + "\x00" + q.KCID))
	number := int64(binary.BigEndian.Uint64(digest[:8])) // any number will do
	var taken sql.NullString
	if err := tx.QueryRowContext(ctx, take, number).Scan(&taken); err != nil {
		return nil, err
	}
	if giveBack == "" {
		return func() {}, nil
	}
	if taken.String != "1" {
		return nil, ourErrorf("on_unknown: the same member has been being created elsewhere for too long")
	}
	return func() {
		_ = tx.Rollback() // does nothing once it is committed
		// the request may be over, but the session goes on to hold the lock
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.grace)
		defer cancel()
		if _, err := conn.ExecContext(ctx, giveBack, number); err != nil {
			_ = conn.Raw(func(any) error { return errBroken }) // ends the session, and with it the lock
		}
	}, nil
}

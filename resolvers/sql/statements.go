package sqlresolver

import (
	"context"
	"database/sql"
	"sync"
)

// maxStatements bounds the prepared statements of one database. There are more
// only if reloads change the query again and again.
const maxStatements = 64

// statements are those that stay prepared, for drivers that would otherwise
// prepare a query each time it is put.
type statements struct {
	mu   sync.Mutex
	kept map[string]*sql.Stmt
}

// QueryContext puts a query that only reads.
func (d *database) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	if !d.source.prepares() {
		return d.db.QueryContext(ctx, text, args...)
	}
	statement, err := d.prepared(ctx, text) //nolint:sqlclosecheck // it is kept
	if err != nil {
		return nil, err
	}
	return statement.QueryContext(ctx, args...)
}

// prepared returns the statement for a query. database/sql prepares it on each
// connection that it comes to be put on.
func (d *database) prepared(ctx context.Context, text string) (*sql.Stmt, error) {
	d.mu.Lock()
	statement := d.kept[text]
	d.mu.Unlock()
	if statement != nil {
		return statement, nil
	}
	statement, err := d.db.PrepareContext(ctx, text) // without the lock, for it asks the server
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if other := d.kept[text]; other != nil {
		_ = statement.Close() //nolint:sqlclosecheck // it was never used
		return other, nil
	}
	if d.kept == nil || len(d.kept) >= maxStatements {
		// those dropped are closed with their connections: somebody may be using them
		d.kept = make(map[string]*sql.Stmt)
	}
	d.kept[text] = statement
	return statement, nil
}

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx
	_ "modernc.org/sqlite"             // the driver sqlite
)

// membersTable is the application's table of members. In PostgreSQL it stays when the
// demo ends.
const membersTable = "kca_demo_members"

// membersQuery is what the resolver asks. kc_id, tenant, active and id are required;
// the other columns become attributes.
const membersQuery = "select kc_id, tenant, active, id, roles, plan from " + membersTable +
	" where kc_id = :kc_id and tenant = :tenant"

// postgresEnv is the environment variable through which Caddy gets the DSN, so that
// no password is in the Caddyfile.
const postgresEnv = "KCA_DEMO_POSTGRES"

// members is the application's database.
type members struct {
	about  string // one line for people
	driver string // as the resolver calls it
	dsn    string // as the Caddyfile gives it to the resolver

	db  *sql.DB
	ids map[string]string // user name → Keycloak id
}

// openSQLite makes a database in dir.
func openSQLite(ctx context.Context, dir string, ids map[string]string) (*members, error) {
	path := filepath.Join(dir, "members.db")
	// wait for readers that lock the file for a moment
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(2000)")
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	m := &members{about: "SQLite, " + path, driver: "sqlite", dsn: path, db: db, ids: ids}
	return m, m.fillOrClose(ctx)
}

// openPostgres makes the table in a database that exists.
func openPostgres(ctx context.Context, dsn string, ids map[string]string) (*members, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		// what pgx says may quote the password
		return nil, errors.New("-postgres takes a DSN such as postgres://user:password@localhost:5432/database")
	}
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return nil, fmt.Errorf("opening PostgreSQL: %w", err)
	}
	m := &members{
		about:  fmt.Sprintf("PostgreSQL, table %s in %s at %s:%d, left there", membersTable, config.Database, config.Host, config.Port),
		driver: "postgres", dsn: "{env." + postgresEnv + "}", db: db, ids: ids,
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return m, m.fillOrClose(ctx)
}

func (m *members) fillOrClose(ctx context.Context) error {
	err := m.fill(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("filling the members' table: %w", err), m.db.Close())
	}
	return nil
}

// fill makes the table and puts the memberships into it, and nothing else.
func (m *members) fill(ctx context.Context) error {
	tx, err := m.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	for _, statement := range []string{
		"create table if not exists " + membersTable + ` (
			kc_id  text    not null,
			tenant text    not null,
			active boolean not null,
			id     text    not null,
			roles  text    not null,
			plan   text    not null,
			primary key (kc_id, tenant)
		)`,
		"delete from " + membersTable,
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	insert := m.bind("insert into " + membersTable + " (kc_id, tenant, active, id, roles, plan) values (?, ?, ?, ?, ?, ?)")
	for _, row := range memberships {
		if _, err := tx.ExecContext(ctx, insert, m.ids[row.user], row.tenant, row.active, row.id, row.rolesColumn(), row.plan); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// setActive changes a member, as the application would. It reports whether there is
// such a member.
func (m *members) setActive(ctx context.Context, user, tenant string, active bool) (bool, error) {
	update := m.bind("update " + membersTable + " set active = ? where kc_id = ? and tenant = ?")
	result, err := m.db.ExecContext(ctx, update, active, m.ids[user], tenant)
	if err != nil {
		return false, err
	}
	changed, err := result.RowsAffected()
	return changed == 1, err
}

// bind numbers the parameters where the database wants them numbered.
func (m *members) bind(statement string) string {
	if m.driver != "postgres" {
		return statement
	}
	var b strings.Builder
	for i, part := range strings.Split(statement, "?") {
		if i > 0 {
			b.WriteString("$" + strconv.Itoa(i))
		}
		b.WriteString(part)
	}
	return b.String()
}

func (m *members) close() error { return m.db.Close() }

package sqlresolver

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

const (
	alice = "6f1c8a9e-1111-4222-8333-444455556666"
	bob   = "7a2d9b0f-1111-4222-8333-444455556666"
)

// sqliteDB makes a database file, with the statements applied, and returns its
// path and a connection that may write.
func sqliteDB(t testing.TB, statements string) (string, *sql.DB) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "members 50%.db")
	db, err := sql.Open("sqlite", "file:"+strings.NewReplacer(" ", "%20", "%", "%25").Replace(path)+"?_pragma=journal_mode(wal)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.ExecContext(t.Context(), statements); err != nil {
		t.Fatal(err)
	}
	return path, db
}

const membersTable = `
	create table members (
		kc_id text not null, tenant text not null, active boolean, id integer,
		email text, roles json, level real, joined datetime, admin boolean, note text);
	insert into members values
		('` + alice + `', 'acme', true, 41, 'a@acme.example', '["editor","viewer"]', 1.5, '2026-01-02 03:04:05', true, null),
		('` + bob + `', 'acme', false, 42, 'b@acme.example', '[]', 2, null, false, ''),
		('` + bob + `', 'Acme', null, 43, null, null, null, null, null, null);`

func ask(t testing.TB, r *Resolver, kcID, tenant string) (*member.Member, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return r.Resolve(ctx, member.Query{KCID: kcID, Tenant: tenant, Issuer: "https://sso.example/realms/main"})
}

func TestSQLiteFindsTheMember(t *testing.T) {
	path, _ := sqliteDB(t, membersTable)
	r := mustLoad(t, map[string]any{"driver": "sqlite", "dsn": path, "query": "select * from members" + byKey})

	got, err := ask(t, r, alice, "acme")
	if err != nil {
		t.Fatal(err)
	}
	checkMember(t, got, &member.Member{
		KCID: alice, Tenant: "acme", Active: true, ID: "41",
		Attributes: map[string]member.Value{
			"email": member.Text("a@acme.example"), "roles": member.List("editor", "viewer"), "level": member.Text("1.5"),
			"joined": member.Text("2026-01-02T03:04:05Z"), "admin": member.Text("true"),
		},
	})
	got, err = ask(t, r, bob, "acme")
	if err != nil {
		t.Fatal(err)
	}
	checkMember(t, got, &member.Member{
		KCID: bob, Tenant: "acme", ID: "42",
		Attributes: map[string]member.Value{
			"email": member.Text("b@acme.example"), "roles": member.List(), "level": member.Text("2"),
			"admin": member.Text("false"), "note": member.Text(""),
		},
	})
	got, err = ask(t, r, bob, "Acme")
	if err != nil {
		t.Fatal(err)
	}
	checkMember(t, got, &member.Member{KCID: bob, Tenant: "Acme", ID: "43"})

	for _, q := range [][2]string{{alice, "Acme"}, {strings.ToUpper(alice), "acme"}, {"", ""}, {"' OR '1'='1", "acme"}, {alice, "acme' --"}, {":kc_id", "?1"}} {
		if got, err := ask(t, r, q[0], q[1]); !errors.Is(err, member.ErrUnknown) || got != nil {
			t.Errorf("%q: %v, %v, want ErrUnknown", q, got, err)
		}
	}
}

func checkMember(t *testing.T, got, want *member.Member) {
	t.Helper()
	if got.KCID != want.KCID || got.Tenant != want.Tenant || got.Issuer != want.Issuer || got.Active != want.Active || got.ID != want.ID {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if !maps.EqualFunc(got.Attributes, want.Attributes, member.Value.Equal) {
		gotText, _ := json.Marshal(got.Attributes)
		wantText, _ := json.Marshal(want.Attributes)
		t.Errorf("attributes\ngot  %s\nwant %s", gotText, wantText)
	}
}

func TestSQLiteRows(t *testing.T) {
	row := func(columns string) string {
		return "select :kc_id || '' as kc_id, 'acme' as tenant, " + columns + " where :tenant <> ''"
	}
	tests := map[string]struct {
		query string
		want  *member.Member // nil if refused
		error string
	}{
		"active as the text t":          {row("'t' as active, 1 as id"), &member.Member{Active: true, ID: "1"}, ""},
		"active as the text true":       {row("'true' as active, 1 as id"), &member.Member{Active: true, ID: "1"}, ""},
		"active as the text 1":          {row("'1' as active, 1 as id"), &member.Member{Active: true, ID: "1"}, ""},
		"active as the text f":          {row("'f' as active, 1 as id"), &member.Member{ID: "1"}, ""},
		"active as the text false":      {row("'false' as active, 1 as id"), &member.Member{ID: "1"}, ""},
		"active as the text 0":          {row("'0' as active, 1 as id"), &member.Member{ID: "1"}, ""},
		"active that is NULL":           {row("null as active, 1 as id"), &member.Member{ID: "1"}, ""},
		"active as 2":                   {row("2 as active, 1 as id"), nil, "column active is neither"},
		"active as -1":                  {row("-1 as active, 1 as id"), nil, "column active is neither"},
		"active as 1.0":                 {row("1.0 as active, 1 as id"), nil, "column active is neither"},
		"active as another text":        {row("'enabled' as active, 1 as id"), nil, "`status = 'enabled' as active`"},
		"active as empty text":          {row("'' as active, 1 as id"), nil, "column active is neither"},
		"active as bytes":               {row("x'01' as active, 1 as id"), nil, "column active is neither"},
		"id as text":                    {row("1 as active, 'm-7' as id"), &member.Member{Active: true, ID: "m-7"}, ""},
		"id that is NULL":               {row("1 as active, null as id"), nil, "column id is NULL"},
		"id that is empty":              {row("1 as active, '' as id"), nil, "column id is empty"},
		"id as a fraction":              {row("1 as active, 1.5 as id"), nil, "column id must be"},
		"id as bytes":                   {row("1 as active, x'6161' as id"), nil, "column id must be"},
		"id that is not UTF-8":          {row("1 as active, cast(x'ff' as text) as id"), nil, "column id holds text that is not UTF-8"},
		"id as a list":                  {row(`1 as active, '[1]' as "id[]"`), nil, "column id must not be a list"},
		"kc_id that is NULL":            {"select null as kc_id, 'acme' as tenant, 1 as active, 1 as id where :kc_id <> :tenant", nil, "column kc_id is NULL"},
		"tenant that is NULL":           {"select 'a' as kc_id, null as tenant, 1 as active, 1 as id where :kc_id <> :tenant", nil, "column tenant is NULL"},
		"an issuer":                     {row("1 as active, 1 as id, 'https://x' as issuer"), &member.Member{Active: true, ID: "1", Issuer: "https://x"}, ""},
		"an issuer that is NULL":        {row("1 as active, 1 as id, null as issuer"), nil, "column issuer is NULL"},
		"no kc_id":                      {"select 'acme' as tenant, 1 as active, 1 as id where :kc_id <> :tenant", nil, "no column kc_id; select"},
		"no tenant":                     {"select :kc_id || '' as kc_id, 1 as active, 1 as id where :tenant <> ''", nil, "no column tenant; select"},
		"no active":                     {row("1 as id"), nil, "no column active; select"},
		"no id":                         {row("1 as active"), nil, "no column id; select"},
		"no id, and no row either":      {row("1 as active") + " and 1 = 0", nil, "no column id; select"},
		"a column in capitals":          {row("1 as active, 1 as ID"), nil, "called \"ID\"; write `as id`"},
		"an issuer in capitals":         {row("1 as active, 1 as id, 'x' as Issuer"), nil, "called \"Issuer\"; write `as issuer`"},
		"two columns of one name":       {row("1 as active, 1 as id, 2 as id"), nil, `two columns called "id"`},
		"a column without a name":       {row("1 as active, 1 as id, 1 + 1"), nil, "column 5 of the query has no usable name"},
		"an attribute of bytes":         {row("1 as active, 1 as id, x'00' as photo"), nil, "column photo is binary"},
		"an attribute not in UTF-8":     {row("1 as active, 1 as id, cast(x'ff' as text) as note"), nil, "column note holds text that is not UTF-8"},
		"a list not in UTF-8":           {row(`1 as active, 1 as id, '["' || cast(x'ff' as text) || '"]' as "l[]"`), nil, "column l holds text that is not UTF-8"},
		"a list by its name":            {row(`1 as active, 1 as id, json_array('a', 2, json('true')) as "groups[]"`), &member.Member{Active: true, ID: "1", Attributes: map[string]member.Value{"groups": member.List("a", "2", "true")}}, ""},
		"a list that holds null":        {row(`1 as active, 1 as id, json_array('a', null) as "groups[]"`), nil, "column groups is a JSON array of more than"},
		"a list that is none":           {row(`1 as active, 1 as id, 'a,b' as "groups[]"`), nil, "column groups is to be a list"},
		"a list that is a number":       {row(`1 as active, 1 as id, 7 as "groups[]"`), nil, "column groups is called a list"},
		"a list that is NULL":           {row(`1 as active, 1 as id, null as "groups[]"`), &member.Member{Active: true, ID: "1"}, ""},
		"text that looks like a list":   {row(`1 as active, 1 as id, '["admin"]' as note`), &member.Member{Active: true, ID: "1", Attributes: map[string]member.Value{"note": member.Text(`["admin"]`)}}, ""},
		"text like a placeholder":       {row(`1 as active, 1 as id, '{env.HOME}' as note`), &member.Member{Active: true, ID: "1", Attributes: map[string]member.Value{"note": member.Text(`{env.HOME}`)}}, ""},
		"roles as a JSON array in text": {row(`1 as active, 1 as id, '["a"]' as roles`), &member.Member{Active: true, ID: "1", Attributes: map[string]member.Value{"roles": member.List("a")}}, ""},
		"roles as one text":             {row(`1 as active, 1 as id, 'a b' as roles`), &member.Member{Active: true, ID: "1", Attributes: map[string]member.Value{"roles": member.List("a b")}}, ""},
		"roles as empty text":           {row(`1 as active, 1 as id, '' as roles`), &member.Member{Active: true, ID: "1", Attributes: map[string]member.Value{"roles": member.List()}}, ""},
		"roles as a broken array":       {row(`1 as active, 1 as id, '["a"' as roles`), nil, "column roles is to be a list"},
		"a row that is too large":       {row(`1 as active, 1 as id, printf('%.40000c', 'x') as note`), nil, "more than 32768"},
		"a list that is too large":      {row(`1 as active, 1 as id, (with n as (select 1 as i union all select i+1 from n where i < 4000) select json_group_array('') from n) as "l[]"`), nil, "more than 32768"},
		"a row that is nearly so":       {row(`1 as active, 1 as id, printf('%.100c', 'x') as note`), &member.Member{Active: true, ID: "1", Attributes: map[string]member.Value{"note": member.Text(strings.Repeat("x", 100))}}, ""},
		"large and small numbers":       {row(`1 as active, 1 as id, 1e21 as a, 0.1 as b, -9007199254740993 as c, 1e-7 as d`), &member.Member{Active: true, ID: "1", Attributes: map[string]member.Value{"a": member.Text("1e+21"), "b": member.Text("0.1"), "c": member.Text("-9007199254740993"), "d": member.Text("1e-07")}}, ""},
	}
	path, _ := sqliteDB(t, membersTable)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := mustLoad(t, map[string]any{"driver": "sqlite", "dsn": path, "query": test.query})
			got, err := ask(t, r, alice, "acme")
			if test.want == nil {
				if err == nil {
					t.Fatalf("accepted: %+v", got)
				}
				if errors.Is(err, member.ErrUnknown) {
					t.Error("a broken row counts as an unknown user")
				}
				checkError(t, err, "enabled'secret", test.error)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			test.want.KCID, test.want.Tenant = alice, "acme"
			checkMember(t, got, test.want)
		})
	}
}

func TestTwoRowsAreAmbiguous(t *testing.T) {
	path, _ := sqliteDB(t, membersTable+"insert into members select * from members where id = 41;")
	r := mustLoad(t, map[string]any{"driver": "sqlite", "dsn": path, "query": "select * from members" + byKey})
	got, err := ask(t, r, alice, "acme")
	if !errors.Is(err, member.ErrAmbiguous) || got != nil {
		t.Fatalf("got %v, %v, want ErrAmbiguous", got, err)
	}
	checkError(t, err, "", "(kc_id, tenant) unique")
}

func TestSQLiteErrors(t *testing.T) {
	dir := t.TempDir()
	path, _ := sqliteDB(t, membersTable)
	noDB := filepath.Join(dir, "text.db")
	if err := os.WriteFile(noDB, []byte(strings.Repeat("this is no database. ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing.db")
	tests := map[string]struct{ dsn, query, want string }{
		"a file that is missing":    {missing, "select * from members" + byKey, "cannot be opened; it must exist"},
		"a file of another kind":    {noDB, "select * from members" + byKey, "is not an SQLite database"},
		"a table that is missing":   {path, "select * from users" + byKey, "no such table: users"},
		"a column that is missing":  {path, "select nope from members" + byKey, "no such column: nope"},
		"a mistake in the query":    {path, "select from" + byKey, "syntax error"},
		"a value in the error":      {path, "select json_extract('{}', :kc_id), 'acme' where :tenant <> ''", "may hold values"},
		"a query that tries writes": {path, "with x as (select 1 where :kc_id <> :tenant) insert into members (kc_id) select 1 from x", "readonly"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := mustLoad(t, map[string]any{"driver": "sqlite", "dsn": test.dsn, "query": test.query})
			_, err := ask(t, r, alice, "acme")
			if err == nil || errors.Is(err, member.ErrUnknown) {
				t.Fatalf("got %v", err)
			}
			checkError(t, err, alice, "querying the members: ", test.want)
		})
	}
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the missing file came into being: %v", err)
	}
}

func TestSQLitePaths(t *testing.T) {
	path, _ := sqliteDB(t, membersTable)
	dir, base := filepath.Split(path)
	t.Chdir(dir)
	escaped := strings.NewReplacer(" ", "%20", "%", "%25").Replace(path)
	for _, dsn := range []string{path, base, "./" + base, "file:" + escaped, "file://" + escaped, "file://localhost" + escaped, "file:" + escaped + "?mode=ro"} {
		r := mustLoad(t, map[string]any{"driver": "sqlite", "dsn": dsn, "query": "select * from members" + byKey})
		if _, err := ask(t, r, alice, "acme"); err != nil {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}

func TestSQLiteHonoursTheDeadline(t *testing.T) {
	path, _ := sqliteDB(t, membersTable)
	r := mustLoad(t, map[string]any{"driver": "sqlite", "dsn": path, "query": `with recursive n as (select 1 as i union all select i + 1 from n)
		select :kc_id || '' as kc_id, :tenant || '' as tenant, 1 as active, max(i) as id from n`})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := r.Resolve(ctx, member.Query{KCID: alice, Tenant: "acme"})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want the deadline's error", err)
	}
}

// Without WAL, a writer locks readers out for a moment.
func TestSQLiteWaitsForAWriter(t *testing.T) {
	path, db := sqliteDB(t, membersTable)
	writer, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"pragma journal_mode = delete", "begin exclusive"} {
		if _, err := writer.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	r := mustLoad(t, map[string]any{"driver": "sqlite", "dsn": path, "query": "select * from members" + byKey})
	done := make(chan error)
	go func() {
		_, err := ask(t, r, alice, "acme")
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if _, err := writer.ExecContext(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Many look-ups at once, while the application writes.
func TestSQLiteConcurrently(t *testing.T) {
	path, db := sqliteDB(t, membersTable)
	r := mustLoad(t, map[string]any{"driver": "sqlite", "dsn": path, "query": "select * from members" + byKey, "max_open_conns": 4})
	errs := make(chan error, 16)
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			for range 25 {
				if i == 0 {
					if _, err := db.ExecContext(t.Context(), "update members set email = 'x' || email"); err != nil {
						errs <- fmt.Errorf("writing: %w", err)
						return
					}
					continue
				}
				q := []string{alice, bob}[i%2]
				m, err := r.Resolve(t.Context(), member.Query{KCID: q, Tenant: "acme"})
				if err != nil {
					errs <- err
					return
				}
				if m.KCID != q {
					errs <- fmt.Errorf("asked for %s, got %s", q, m.KCID)
					return
				}
			}
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

// Not UTF-8, a list would otherwise be changed on its way through JSON.
func TestSQLiteJSONAsBytes(t *testing.T) {
	path, db := sqliteDB(t, membersTable)
	r := mustLoad(t, map[string]any{"driver": "sqlite", "dsn": path, "query": "select kc_id, tenant, active, id, roles from members" + byKey})
	for value, want := range map[string]string{`["a"]`: "", "[\"\xff\"]": "column roles holds text that is not UTF-8", "[": "not JSON"} {
		if _, err := db.ExecContext(t.Context(), "update members set roles = ?", []byte(value)); err != nil {
			t.Fatal(err)
		}
		got, err := ask(t, r, alice, "acme")
		switch {
		case want != "":
			if err == nil {
				t.Fatalf("%q is accepted", value)
			}
			checkError(t, err, "", want)
		case err != nil || !got.Attributes["roles"].Equal(member.List("a")):
			t.Errorf("%q: got %v, %v", value, got, err)
		}
	}
}

// A request that began before a reload may ask after it.
func TestAnUnusedDatabaseAnswersForAWhile(t *testing.T) {
	path, _ := sqliteDB(t, membersTable)
	d, err := newDatabase(sqliteKind, settings{address: address{DSN: path}, MaxOpenConns: 2, MaxIdleConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	st, err := compile("select * from members"+byKey, sqliteKind.lexis, finding)
	if err != nil {
		t.Fatal(err)
	}
	q := member.Query{KCID: alice, Tenant: "acme"}
	if _, err := d.find(t.Context(), st, q); err != nil {
		t.Fatal(err)
	}
	d.grace = time.Hour
	if err := d.Destruct(); err != nil {
		t.Fatal(err)
	}
	if open := d.db.Stats().OpenConnections; open != 0 {
		t.Errorf("%d connections are kept open", open)
	}
	if _, err := d.find(t.Context(), st, q); err != nil {
		t.Errorf("within the grace: %v", err)
	}
	d.grace = 0
	if err := d.Destruct(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		_, err = d.find(t.Context(), st, q)
		if err != nil || time.Now().After(deadline) {
			break
		}
	}
	if !errors.Is(err, errClosed) {
		t.Errorf("after it: %v", err)
	}
}

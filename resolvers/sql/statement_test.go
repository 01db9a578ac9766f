package sqlresolver

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

const columns = "select kc_id, tenant, active, id from members "

func TestCompile(t *testing.T) {
	const and = " and kc_id = :kc_id and tenant = :tenant"
	tests := map[string]struct {
		lexis  lexis
		query  string
		text   string
		params []string
	}{
		"each use of a parameter becomes a placeholder of its own": {
			postgresKind.lexis, columns + "where kc_id = :kc_id and tenant = :tenant and :issuer <> :tenant",
			columns + "where kc_id = $1 and tenant = $2 and $3 <> $4",
			[]string{"kc_id", "tenant", "issuer", "tenant"},
		},
		"SQLite numbers placeholders after a question mark": {
			sqliteKind.lexis, columns + "where kc_id=:kc_id and tenant=:tenant",
			columns + "where kc_id=?1 and tenant=?2",
			[]string{"kc_id", "tenant"},
		},
		"a parameter right after a word does not become part of the word": {
			postgresKind.lexis, columns + "where kc_id=:kc_id and tenant like:tenant",
			columns + "where kc_id=$1 and tenant like $2",
			[]string{"kc_id", "tenant"},
		},
		"a semicolon at the end is left out": {
			postgresKind.lexis, columns + "where true" + and + " ; \n", columns + "where true and kc_id = $1 and tenant = $2 ", nil,
		},
		"a query may begin with a comment and a parenthesis": {
			postgresKind.lexis, "-- members\n/* a */ (" + columns + "where true" + and + ")",
			"-- members\n/* a */ (" + columns + "where true and kc_id = $1 and tenant = $2)", nil,
		},
		"a parameter is found at the very end":           {postgresKind.lexis, "select :kc_id = :tenant", "select $1 = $2", nil},
		"MySQL does not number placeholders":             {mysqlKind.lexis, "select 1" + and, "select 1 and kc_id = ? and tenant = ?", []string{"kc_id", "tenant"}},
		"MySQL's strings know backslashes":               {mysqlKind.lexis, `select 'it\'s :no', "\" :no", '\\'` + and, `select 'it\'s :no', "\" :no", '\\'` + bare(and), nil},
		"MySQL's names do not":                           {mysqlKind.lexis, "select `\\`" + and + ", '`'", "select `\\`" + bare(and) + ", '`'", nil},
		"MySQL's comments begin with a hash":             {mysqlKind.lexis, "select # it's :no\n1" + and, "select # it's :no\n1" + bare(and), nil},
		"MySQL's dashes need a blank to begin one":       {mysqlKind.lexis, "select 1--1" + and + " -- it's :no", "select 1--1" + bare(and) + " -- it's :no", nil},
		"MySQL's own variables and assignments are kept": {mysqlKind.lexis, "select @a := @@version" + and, "select @a := @@version" + bare(and), nil},
		"brackets are no names to MySQL":                 {mysqlKind.lexis, "select '[', ']'" + and, "select '[', ']'" + bare(and), nil},
		"claims by their paths": {
			postgresKind.lexis, columns + "where kc_id = :kc_id and tenant = :tenant and a=:claim.email and b=:claim.realm_access.roles::text[] and c = any(:claim.groups)",
			columns + "where kc_id = $1 and tenant = $2 and a=$3 and b=$4::text[] and c = any($5)",
			[]string{"kc_id", "tenant", "claim.email", "claim.realm_access.roles", "claim.groups"},
		},
		"claims in quotes": {
			postgresKind.lexis, `select :kc_id, :tenant, :claim."resource_access.my-app.roles"::text[], :claim."https://x/y's"`, "select $1, $2, $3::text[], $4",
			[]string{"kc_id", "tenant", "claim.resource_access.my-app.roles", "claim.https://x/y's"},
		},
		"a dot after a claim that belongs to nothing": {
			postgresKind.lexis, "select :claim.a. , :claim.b" + and, "select $1. , $2 and kc_id = $3 and tenant = $4",
			[]string{"claim.a", "claim.b", "kc_id", "tenant"},
		},
		"strings are kept":                                  {postgresKind.lexis, "select ':no', 'it''s :no'" + and, "select ':no', 'it''s :no'" + replaced(and), nil},
		"a backslash is nothing special in a string":        {postgresKind.lexis, `select '\' ` + and + ` and ''=''`, `select '\' ` + replaced(and) + ` and ''=''`, nil},
		"escape strings know backslashes":                   {postgresKind.lexis, `select E'\' :no', e'a\\'` + and, `select E'\' :no', e'a\\'` + replaced(and), nil},
		"a name that ends in e makes no escape string":      {postgresKind.lexis, `select date'\'` + and, `select date'\'` + replaced(and), nil},
		"SQLite has no escape strings":                      {sqliteKind.lexis, `select e '\', E'\'` + and, `select e '\', E'\'` + question(and), nil},
		"quoted names are kept":                             {postgresKind.lexis, `select ":no "" :no"` + and, `select ":no "" :no"` + replaced(and), nil},
		"dollar quotes are kept":                            {postgresKind.lexis, "select $$:no; '$$, $a$ $b$ :no $$ $a$" + and, "select $$:no; '$$, $a$ $b$ :no $$ $a$" + replaced(and), nil},
		"dollar quotes may be tagged with any letters":      {postgresKind.lexis, "select $ü1$ :no $ü1$" + and, "select $ü1$ :no $ü1$" + replaced(and), nil},
		"a dollar within a name begins no string":           {postgresKind.lexis, "select a$b$" + and + ", 'c$b$'", "select a$b$" + replaced(and) + ", 'c$b$'", nil},
		"line comments are kept":                            {postgresKind.lexis, "select -- it's :no\n1" + and, "select -- it's :no\n1" + replaced(and), nil},
		"a carriage return ends PostgreSQL's line comments": {postgresKind.lexis, "select -- :no\r 1" + and, "select -- :no\r 1" + replaced(and), nil},
		"but not SQLite's":                                  {sqliteKind.lexis, "select -- :no\r:no\n 1" + and, "select -- :no\r:no\n 1" + question(and), nil},
		"PostgreSQL's comments nest":                        {postgresKind.lexis, "select /* /* :no */ :no */ 1" + and, "select /* /* :no */ :no */ 1" + replaced(and), nil},
		"SQLite's do not":                                   {sqliteKind.lexis, "select /* /* :no */ 1" + and, "select /* /* :no */ 1" + question(and), nil},
		"a slash does not end the comment it begins":        {postgresKind.lexis, "select /*/ :no */ 1" + and, "select /*/ :no */ 1" + replaced(and), nil},
		"casts are kept":                                    {postgresKind.lexis, "select a::text, :kc_id::text, :tenant :: text", "select a::text, $1::text, $2 :: text", nil},
		"slices are kept":                                   {postgresKind.lexis, "select a[1:2], a[:2], a[1:], a[x : y]" + and, "select a[1:2], a[:2], a[1:], a[x : y]" + replaced(and), nil},
		"named arguments are kept":                          {postgresKind.lexis, "select f(a := 1)" + and, "select f(a := 1)" + replaced(and), nil},
		"operators with ?, @ and # are kept":                {postgresKind.lexis, "select a ? 'b', a @> b, a #> b" + and, "select a ? 'b', a @> b, a #> b" + replaced(and), nil},
		"SQLite's two other quotes for names are kept":      {sqliteKind.lexis, "select `:no``:no`, [:no]" + and, "select `:no``:no`, [:no]" + question(and), nil},
		"a subquery may call a parameter something else":    {postgresKind.lexis, "with q as (select :tenant as wanted) select 1 where kc_id = :kc_id", "with q as (select $1 as wanted) select 1 where kc_id = $2", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := compile(test.query, test.lexis, finding)
			if err != nil {
				t.Fatal(err)
			}
			if got.text != test.text {
				t.Errorf("got  %s\nwant %s", got.text, test.text)
			}
			if test.params != nil && !slices.Equal(got.params, test.params) {
				t.Errorf("got %v, want %v", got.params, test.params)
			}
		})
	}
}

func replaced(s string) string {
	return strings.NewReplacer(":kc_id", "$1", ":tenant", "$2").Replace(s)
}

func question(s string) string {
	return strings.NewReplacer(":kc_id", "?1", ":tenant", "?2").Replace(s)
}

func bare(s string) string { return strings.NewReplacer(":kc_id", "?", ":tenant", "?").Replace(s) }

func TestCompileRefuses(t *testing.T) {
	tests := map[string]struct {
		lexis lexis
		query string
		want  []string
	}{
		"an unknown parameter":                  {postgresKind.lexis, columns + "where kc_id = :kcid", []string{":kcid", ":kc_id, :tenant, :issuer"}},
		"a parameter in capitals":               {postgresKind.lexis, columns + "where kc_id = :KC_ID", []string{":KC_ID"}},
		"a longer name that begins like one":    {postgresKind.lexis, columns + "where kc_id = :kc_id2", []string{":kc_id2"}},
		"a slice of names, which looks like it": {postgresKind.lexis, "select a[x:y]", []string{":y", "put a blank after it"}},
		"a query without :kc_id":                {postgresKind.lexis, columns + "where tenant = :tenant", []string{":kc_id", "add `where"}},
		"a query without :tenant":               {postgresKind.lexis, columns + "where kc_id = :kc_id", []string{":tenant", "add `where"}},
		"parameters only in a comment":          {postgresKind.lexis, columns + "-- :kc_id :tenant", []string{":kc_id"}},
		"a second statement":                    {postgresKind.lexis, columns + "where kc_id = :kc_id and tenant = :tenant; drop table members", []string{"single statement"}},
		"a statement that writes":               {postgresKind.lexis, "delete from members where kc_id = :kc_id and tenant = :tenant", []string{"SELECT"}},
		"nothing but a comment":                 {postgresKind.lexis, "-- nothing", []string{"SELECT"}},
		"a string that does not end":            {postgresKind.lexis, "select ':kc_id :tenant", []string{"quote (')", "character 8", "does not end"}},
		"an escape string that does not end":    {postgresKind.lexis, `select E'\'`, []string{"does not end"}},
		"a name that does not end":              {sqliteKind.lexis, "select [a", []string{"does not end"}},
		"a comment that does not end":           {postgresKind.lexis, "select /* /* */ 1", []string{"a comment", "does not end"}},
		"a dollar quote that does not end":      {postgresKind.lexis, "select $a$ $b$", []string{"dollar-quoted", "does not end"}},
		"PostgreSQL's own parameters":           {postgresKind.lexis, "select $1", []string{`"$"`, "use :kc_id"}},
		"SQLite's question mark":                {sqliteKind.lexis, "select ?", []string{`"?"`, "use :kc_id"}},
		"SQLite's @name":                        {sqliteKind.lexis, "select @kc_id", []string{`"@"`, "use :kc_id"}},
		"SQLite's $name":                        {sqliteKind.lexis, "select $kc_id", []string{`"$"`, "use :kc_id"}},
		"SQLite's :123":                         {sqliteKind.lexis, "select :123", []string{":123"}},
		"the tenant given back":                 {postgresKind.lexis, "select kc_id, :tenant as tenant from members where kc_id = :kc_id", []string{"selects :tenant as tenant", "a column or a constant"}},
		"the user given back with a cast":       {postgresKind.lexis, `select :kc_id::text AS "kc_id", tenant from members where tenant = :tenant`, []string{"selects :kc_id as kc_id"}},
		"a claim without a path":                {postgresKind.lexis, "select :claim", []string{"character 8", "without saying which", ":claim.email"}},
		"a claim with an empty path":            {postgresKind.lexis, "select :claim. + 1", []string{"without saying which"}},
		"a claim with an empty word":            {postgresKind.lexis, "select :claim..a", []string{"without saying which"}},
		"a claim with empty quotes":             {postgresKind.lexis, `select :claim.""`, []string{"without saying which"}},
		"a claim whose quotes do not end":       {postgresKind.lexis, `select :claim."a`, []string{"without saying which"}},
		"a claim for the tenant":                {postgresKind.lexis, "select kc_id, :claim.organization as tenant from members where kc_id = :kc_id and tenant = :tenant", []string{"selects :claim.organization as tenant"}},
		"a quoted claim for the user":           {postgresKind.lexis, `select :claim."sub"::text as kc_id from members where kc_id = :kc_id and tenant = :tenant`, []string{"as kc_id"}},
		"MySQL's question mark":                 {mysqlKind.lexis, "select ?", []string{`"?"`}},
		"MySQL's executed comments":             {mysqlKind.lexis, "select 1 /*!50000 , ':no' */", []string{"character 10", "executed"}},
		"MariaDB's executed comments":           {mysqlKind.lexis, "select 1 /*M! , ':no' */", []string{"executed"}},
		"the tenant given back to MySQL":        {mysqlKind.lexis, "select kc_id, :tenant as `tenant` from members where kc_id = :kc_id", []string{"selects :tenant as tenant"}},
		"the tenant given back in quotes":       {mysqlKind.lexis, "select kc_id, :tenant as 'tenant' from members where kc_id = :kc_id", []string{"selects :tenant as tenant"}},
		"NUL":                                   {postgresKind.lexis, "select \x00", []string{"UTF-8"}},
		"invalid UTF-8":                         {postgresKind.lexis, "select '\xff'", []string{"UTF-8"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := compile(test.query, test.lexis, finding)
			if err == nil {
				t.Fatalf("accepted as %q", got.text)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not hold %q", err, want)
				}
			}
		})
	}
}

// FuzzCompile looks for queries that are changed anywhere but at parameters,
// or whose placeholders and parameters do not match.
func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		columns + "where kc_id = :kc_id and tenant = :tenant", "select '", `select E'\'`, "select $a$:kc_id$a$", "select /*/**/:kc_id*/",
		"select a::text, a[1:2], :issuer;", "select [:tenant], `:kc_id`", "--\r:kc_id\n:tenant", "select \"a\"\"b\" :", "1:kc_id:tenant",
		":claim.a.b.", `:claim."a"b`, ":claim..a",
	} {
		f.Add(seed, ":kc_id")
	}
	f.Fuzz(func(t *testing.T, query, inside string) {
		const prefix = "select :kc_id,:tenant," // so that nothing is refused for what it lacks
		for _, k := range []kind{postgresKind, mysqlKind, sqliteKind} {
			if st, err := compile(prefix+query, k.lexis, finding); err == nil {
				checkAligned(t, prefix+query, st, k.lexis)
			}
			for _, quoted := range quote(inside, k.lexis) {
				st, err := compile(prefix+quoted, k.lexis, finding)
				if err == nil && (!strings.HasSuffix(st.text, quoted) || len(st.params) != 2) {
					t.Errorf("%q became %q with %v", quoted, st.text, st.params)
				}
			}
		}
	})
}

// checkAligned walks through a query and its statement side by side: they are
// the same but for parameters, numbered without a gap, and a semicolon.
func checkAligned(t *testing.T, query string, st statement, lx lexis) {
	t.Helper()
	in, out, n := query, st.text, 0
	for out != "" {
		written := ""
		if n < len(st.params) {
			written = ":" + st.params[n]
			if path, isClaim := strings.CutPrefix(st.params[n], claimPrefix); isClaim && strings.HasPrefix(in, `:claim."`) {
				written = `:claim."` + path + `"`
			}
		}
		if written != "" && strings.HasPrefix(in, written) && !strings.HasPrefix(out, ":") {
			number := lx.placeholder
			if !lx.unnumbered {
				number += strconv.Itoa(n + 1)
			}
			out = strings.TrimPrefix(out, " ")
			if !strings.HasPrefix(out, number) {
				t.Fatalf("%q became %q, which lacks %s", query, st.text, number)
			}
			in, out, n = in[len(written):], out[len(number):], n+1
			continue
		}
		if in == "" || in[0] != out[0] {
			t.Fatalf("%q became %q", query, st.text)
		}
		in, out = in[1:], out[1:]
	}
	if rest := strings.TrimSpace(in); n != len(st.params) || rest != "" && rest != ";" {
		t.Fatalf("%q became %q with %v", query, st.text, st.params)
	}
}

// quote returns a text in all the ways in which it is nothing but text.
func quote(text string, lx lexis) []string {
	hashes := lx.hashComments
	if lx.backslashes {
		if strings.Contains(text, "!") {
			return nil // after /* or /*M, no comment begins
		}
		text = strings.ReplaceAll(text, `\`, `\\`)
	}
	quoted := []string{
		"'" + strings.ReplaceAll(text, "'", "''") + "'",
		`"` + strings.ReplaceAll(text, `"`, `""`) + `"`,
	}
	if !strings.Contains(text+"*", "*/") && !strings.Contains(text, "/*") && !strings.HasSuffix(text, "/") {
		quoted = append(quoted, "/*"+text+"*/")
	}
	if !strings.ContainsAny(text, "\r\n") {
		quoted = append(quoted, "-- "+text)
		if hashes {
			quoted = append(quoted, "#"+text)
		}
	}
	if lx.dollarQuotes && !strings.Contains(text, "$") {
		quoted = append(quoted, "$$"+text+"$$", "$f$"+text+"$f$")
	}
	if lx.bracketNames && !strings.Contains(text, "]") {
		quoted = append(quoted, "["+text+"]")
	}
	return quoted
}

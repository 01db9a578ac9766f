package servers

import (
	"strings"
	"testing"
)

func TestMariaDBGivesEachTestAnEmptyDatabase(t *testing.T) {
	a, b := MariaDB(t), MariaDB(t)
	MariaDBSQL(t, a, "create table members (kc_id text); insert into members values ('ü')")
	if got := MariaDBSQL(t, a, "select kc_id, char_length(kc_id), current_user(), kc_id = 'Ü' from members"); got != "ü\t1\tkca@127.0.0.1\t1" {
		t.Errorf("mariadb printed %q", got)
	}
	if got := MariaDBSQL(t, b, "show tables"); got != "" {
		t.Errorf("the other database has tables: %s", got)
	}
}

func TestMariaDBKeepsItsDataWhenStopped(t *testing.T) {
	s := StartMariaDB(t)
	MariaDBSQL(t, s.DSN, "create table t (n int); insert into t values (1)")
	s.Stop()
	if _, err := mariaDBSQL(t.Context(), s.DSN, "select 1"); err == nil {
		t.Error("it runs on")
	}
	s.Start(t)
	if got := MariaDBSQL(t, s.DSN, "select n from t"); got != "1" {
		t.Errorf("the table holds %q", got)
	}
}

func TestMariaDBWantsItsPassword(t *testing.T) {
	dsn := MariaDB(t)
	user, rest, _ := strings.Cut(dsn, ":")
	_, rest, _ = strings.Cut(rest, "@")
	for _, login := range []string{user, "root"} {
		if _, err := mariaDBSQL(t.Context(), login+":wrong@"+rest, "select 1"); err == nil || !strings.Contains(err.Error(), "Access denied") {
			t.Errorf("%s with a wrong password: %v", login, err)
		}
	}
}

package servers

import (
	"net"
	"net/url"
	"strings"
	"testing"
)

func TestPostgresGivesEachTestAnEmptyDatabase(t *testing.T) {
	a, b := Postgres(t), Postgres(t)
	PSQL(t, a, "create table members (kc_id text); insert into members values ('ü')")
	if got := PSQL(t, a, "select kc_id, length(kc_id), current_user from members"); got != "ü|1|postgres" {
		t.Errorf("psql printed %q", got)
	}
	if got := PSQL(t, b, "select count(*) from pg_tables where schemaname = 'public'"); got != "0" {
		t.Errorf("the other database has %s tables", got)
	}
}

func TestPostgresDropsTheDatabase(t *testing.T) {
	var dsn string
	t.Run("while a test uses it", func(t *testing.T) { dsn = Postgres(t) })
	if _, err := psql(t.Context(), dsn, "select 1"); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("afterwards: %v", err)
	}
}

func TestPostgresKeepsItsDataWhenStoppedAndKilled(t *testing.T) {
	s := StartPostgres(t)
	PSQL(t, s.DSN, "create table t (n int); insert into t values (1)")
	for name, end := range map[string]func(){"stopped": s.Stop, "killed": s.Kill} {
		before := s.PID()
		end()
		if _, err := psql(t.Context(), s.DSN, "select 1"); err == nil || strings.Contains(err.Error(), password(t, s.DSN)) {
			t.Errorf("%s: psql says %v", name, err)
		}
		s.Start(t)
		if after := s.PID(); after == before || after == 0 {
			t.Errorf("%s: process id %d, before %d", name, after, before)
		}
		if got := PSQL(t, s.DSN, "select n from t"); got != "1" {
			t.Errorf("%s: the table holds %q", name, got)
		}
	}
}

func TestPostgresWantsItsPassword(t *testing.T) {
	u, err := url.Parse(Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	if host, _, _ := net.SplitHostPort(u.Host); host != loopback {
		t.Errorf("it listens on %s", host)
	}
	u.User = url.UserPassword(postgresSuperuser, "wrong")
	if _, err := psql(t.Context(), u.String(), "select 1"); err == nil || !strings.Contains(err.Error(), "password authentication failed") {
		t.Errorf("with a wrong password: %v", err)
	}
}

func password(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	return password
}

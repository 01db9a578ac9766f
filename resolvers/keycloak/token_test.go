package keycloakresolver

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func TestTheTokenIsKeptAndRenewed(t *testing.T) {
	f := newFake(t)
	r := f.resolver(t, "")
	now := time.Now()
	r.realm.tokens.now = func() time.Time { return now }
	steps := []struct {
		name   string
		do     func()
		logins int64
	}{
		{"the first look-up logs in", func() {}, 1},
		{"the next uses the token", func() {}, 1},
		{"until shortly before its end", func() { now = now.Add(279 * time.Second) }, 1},
		{"and then logs in again", func() { now = now.Add(2 * time.Second) }, 2},
		{"a refused token is renewed at once", func() { f.revoke() }, 3},
		{"a clock that was set back makes no difference", func() { now = now.Add(-time.Hour) }, 3},
		{"a token of one second is used for it", func() { f.revoke(); f.life = 1 }, 4},
		{"and no longer", func() { now = now.Add(time.Second) }, 5},
	}
	for _, step := range steps {
		step.do()
		if m, err := r.Resolve(t.Context(), f.query()); err != nil || m.Tenant != "acme" || !m.Active {
			t.Fatalf("%s: got %+v, %v", step.name, m, err)
		}
		if n := f.logins.Load(); n != step.logins {
			t.Errorf("%s: %d logins, want %d", step.name, n, step.logins)
		}
	}
}

func TestATokenThatIsRefusedIsRenewedOnce(t *testing.T) {
	f := newFake(t)
	f.HandleFunc("GET "+admin+"/users/refused", status(401, ""))
	q := f.query()
	q.KCID = "refused"
	_, err := f.resolver(t, "").Resolve(t.Context(), q)
	checkError(t, err, "401 to a new token")
	if logins, calls := f.logins.Load(), f.calls.Load(); logins != 2 || calls != 2 {
		t.Errorf("%d logins and %d calls, want 2 of each", logins, calls)
	}
}

func TestManyLookUpsLogInOnce(t *testing.T) {
	f := newFake(t)
	r := f.resolver(t, "")
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, err := r.Resolve(t.Context(), f.query()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := f.logins.Load(); n != 1 {
		t.Errorf("%d logins", n)
	}
}

func TestAFailedLoginIsNotRepeatedByAll(t *testing.T) {
	f := newFake(t)
	f.login = status(503, "")
	r := f.resolver(t, "")
	now := time.Now()
	r.realm.tokens.now = func() time.Time { return now }
	for range 10 {
		_, err := r.Resolve(t.Context(), f.query())
		checkError(t, err, "503 to the client's login")
	}
	if n := f.logins.Load(); n != 1 {
		t.Errorf("%d logins within a moment", n)
	}
	now = now.Add(retryPause)
	f.login = nil
	if _, err := r.Resolve(t.Context(), f.query()); err != nil {
		t.Errorf("after a pause: %v", err)
	}
}

// Who waits no longer than another must not fail that one.
func TestAnImpatientCallerFailsNobodyElse(t *testing.T) {
	f := newFake(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	f.login = func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}
	defer close(release)
	r := f.resolver(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	impatient := make(chan error, 1)
	go func() {
		_, err := r.Resolve(ctx, f.query())
		impatient <- err
	}()
	<-arrived
	cancel()
	if err := <-impatient; !errors.Is(err, context.Canceled) {
		t.Errorf("the impatient got %v", err)
	}
	f.login = nil
	if _, err := r.Resolve(t.Context(), f.query()); err != nil {
		t.Errorf("the next got %v", err)
	}
}

func TestLoginsThatAreRefused(t *testing.T) {
	tests := map[string]struct {
		login http.HandlerFunc
		want  string
	}{
		"a wrong secret":     {status(401, `{"error":"s3cret"}`), "check client_id and client_secret"},
		"no service account": {status(400, `{"error":"unauthorized_client"}`), "has its service account on"},
		"no realm":           {status(404, ""), "check the realm's name"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, "answers 307"},
		"HTML":                   {answer("<html>"), "not JSON of the expected form"},
		"no token":               {answer(`{"expires_in":300}`), "the answer has no token"},
		"a token that is no one": {answer(`{"access_token":"a\r\nb","expires_in":300}`), "the answer has no token"},
		"two tokens":             {answer(`{"access_token":"a","access_token":"b"}`), "not JSON of the expected form"},
		"a long answer":          {answer(`{"access_token":"` + strings.Repeat("x", maxTokenAnswer) + `"}`), "more than 65536 bytes"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.login = test.login
			_, err := f.resolver(t, "").Resolve(t.Context(), f.query())
			checkError(t, err, test.want)
			if errors.Is(err, member.ErrUnknown) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("got %v", err)
			}
			if f.calls.Load() != 0 {
				t.Error("the admin API was asked")
			}
		})
	}
}

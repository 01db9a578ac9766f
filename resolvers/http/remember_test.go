package httpresolver

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func TestETag(t *testing.T) {
	version, answer := "1", alice
	a := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		if answer == "" {
			w.WriteHeader(404)
			return
		}
		w.Header().Set("ETag", strconv.Quote(version))
		if r.Header.Get("If-None-Match") == strconv.Quote(version) {
			w.WriteHeader(304)
			return
		}
		record(answer)(w, r)
	})
	r := mustLoad(t, a.URL, path)
	ask := func(want string) *member.Member {
		t.Helper()
		m, err := r.Resolve(t.Context(), aliceAtAcme)
		if err != nil {
			t.Fatal(err)
		}
		requests := a.requests()
		if got := requests[len(requests)-1].header.Get("If-None-Match"); got != want {
			t.Errorf("If-None-Match is %q, want %q", got, want)
		}
		return m
	}
	first := ask("")
	if second := ask(`"1"`); second != first {
		t.Errorf("a 304 gave %+v", second)
	}
	q := aliceAtAcme
	q.Tenant = "other"
	if _, err := r.Resolve(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	if requests := a.requests(); requests[len(requests)-1].header.Get("If-None-Match") != "" {
		t.Error("the answer about one tenant is offered for another")
	}
	version, answer = "2", strings.Replace(alice, "true", "false", 1)
	if changed := ask(`"1"`); changed.Active {
		t.Error("a changed record was not read")
	}
	if again := ask(`"2"`); again.Active {
		t.Error("the changed record was not remembered")
	}
	answer = ""
	if _, err := r.Resolve(t.Context(), aliceAtAcme); !errors.Is(err, member.ErrUnknown) {
		t.Errorf("got %v", err)
	}
	answer = alice
	ask("") // what is unknown is forgotten
}

func TestAnswersThatAreNotRemembered(t *testing.T) {
	tests := map[string]struct {
		config, name, value string
	}{
		"no ETag":      {path, "X-A", "b"},
		"no-store":     {path, "Cache-Control", "private, No-Store"},
		"a long ETag":  {path, "ETag", `"` + strings.Repeat("x", 300) + `"`},
		"one of POSTs": {`{"url":"URL/m","method":"POST"}`, "X-A", "b"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, func(w http.ResponseWriter, r *http.Request) {
				if name != "no ETag" {
					w.Header().Set("ETag", `"1"`)
				}
				w.Header().Set(test.name, test.value)
				record(alice)(w, r)
			})
			r := mustLoad(t, a.URL, test.config)
			for range 2 {
				if _, err := r.Resolve(t.Context(), aliceAtAcme); err != nil {
					t.Fatal(err)
				}
			}
			if got := a.requests()[1].header["If-None-Match"]; got != nil {
				t.Errorf("If-None-Match is %q", got)
			}
		})
	}
}

func TestRememberedAnswersAreBounded(t *testing.T) {
	a := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		record(strings.Replace(alice, "gold", strings.Repeat("x", 60<<10), 1))(w, r)
	})
	r := mustLoad(t, a.URL, path)
	for i := range 200 { // 12 MiB
		q := aliceAtAcme
		q.KCID = strconv.Itoa(i)
		if _, err := r.Resolve(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	r.application.answers.CleanUp()
	if weight := r.application.answers.WeightedSize(); weight > maxRemembered || weight == 0 {
		t.Errorf("%d bytes are remembered", weight)
	}
}

package keycloakcacheauth

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// shownMember is what one level of one cache holds of a member.
type shownMember struct {
	Store  string `json:"store"`
	Level  string `json:"level"`
	Result string `json:"result"` // `hit`, or why the entry is not used
	Issuer string `json:"issuer"`
	Claims string `json:"claims,omitempty"` // digest of the token's claims that the resolvers read

	*shownEntry
}

// shownEntry is the entry itself, if there is one.
type shownEntry struct {
	Active     bool                `json:"active"`
	MemberID   string              `json:"member_id"`
	LoadedAt   time.Time           `json:"loaded_at"`
	AgeSeconds float64             `json:"age_seconds"`
	Expires    time.Time           `json:"expires"`
	Attributes map[string][]string `json:"attributes,omitempty"` // if asked for
}

func (AdminAPI) show(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return wrongMethod(w, http.MethodGet)
	}
	tenant, kcID := r.PathValue("tenant"), r.PathValue("kc_id")
	if !isTenantName(tenant) || kcID == "" || len(kcID) > maxAdminID {
		return badRequest(errors.New("the path is to end in a tenant and a user's Keycloak id"))
	}
	withAttributes := r.URL.Query().Get("attributes") == "true"
	answer := struct {
		Tenant  string        `json:"tenant"`
		KCID    string        `json:"kc_id"`
		Entries []shownMember `json:"entries"`
	}{tenant, kcID, []shownMember{}}
	for _, one := range stores.All() {
		shared := one.Stats().Shared
		for key, want := range one.views.keysOf(tenant, kcID, one.InMemory(tenant, kcID)) {
			peeked := one.Peek(r.Context(), key, want)
			for _, level := range []struct {
				name string
				seen store.Seen
			}{{store.Memory.String(), peeked.Memory}, {store.Redis.String(), peeked.Redis}} {
				if level.seen.Result == store.Miss || level.name == store.Redis.String() && !shared {
					continue
				}
				answer.Entries = append(answer.Entries, shownMember{
					Store: one.name, Level: level.name, Result: level.seen.Result.String(), Issuer: want.Issuer, Claims: want.Claims,
					shownEntry: showEntry(level.seen.Entry, withAttributes),
				})
			}
		}
	}
	slices.SortFunc(answer.Entries, func(a, b shownMember) int {
		return strings.Compare(a.Store+a.Issuer+a.Claims+a.Level, b.Store+b.Issuer+b.Claims+b.Level)
	})
	return writeAdmin(w, statusDone, answer)
}

func showEntry(entry *store.Entry, withAttributes bool) *shownEntry {
	if entry == nil {
		return nil
	}
	shown := &shownEntry{
		Active: entry.Member.Active, MemberID: entry.Member.ID,
		LoadedAt: entry.LoadedAt(), AgeSeconds: time.Since(entry.LoadedAt()).Seconds(), Expires: entry.Expires(),
	}
	if withAttributes {
		shown.Attributes = make(map[string][]string)
		for name, value := range entry.Member.AllAttributes() {
			shown.Attributes[name] = textsOf(value)
		}
	}
	return shown
}

func textsOf(value member.Value) []string {
	if value.IsList() {
		return value.Strings()
	}
	return []string{value.Text()}
}

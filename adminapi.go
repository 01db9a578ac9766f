package keycloakcacheauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	jsonv2 "github.com/go-json-experiment/json"
)

func init() {
	caddy.RegisterModule(AdminAPI{})
}

// AdminAPI adds routes to Caddy's admin endpoint, with which operators and the
// application look into the members' caches and flush them:
//
//   - `POST /keycloak_cache_auth/flush` flushes whom the JSON object in the body
//     names;
//   - `GET /keycloak_cache_auth/members/<tenant>/<kc_id>` shows what is cached
//     of a member;
//   - `GET /keycloak_cache_auth/stats` tells how the caches are.
//
// They need no configuration. Each call is for all caches of this process.
type AdminAPI struct{}

// CaddyModule returns the Caddy module information.
func (AdminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.keycloak_cache_auth",
		New: func() caddy.Module { return new(AdminAPI) },
	}
}

// adminPath is where the routes are.
const adminPath = "/keycloak_cache_auth/"

// maxAdminBody bounds what is read of a request, in bytes.
const maxAdminBody = 16 << 10

// Routes implements [caddy.AdminRouter].
func (a AdminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: adminPath + "flush", Handler: caddy.AdminHandlerFunc(a.flush)},
		{Pattern: adminPath + "stats", Handler: caddy.AdminHandlerFunc(a.stats)},
		{Pattern: adminPath + "members/{tenant}/{kc_id}", Handler: caddy.AdminHandlerFunc(a.show)},
	}
}

func (AdminAPI) flush(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		return wrongMethod(w, http.MethodPost)
	}
	scope, err := readFlush(r)
	if err != nil {
		return badRequest(err)
	}
	flushed, err := Flush(r.Context(), scope)
	if err != nil {
		return badRequest(err)
	}
	status := statusDone
	if slices.ContainsFunc(flushed, func(f Flushed) bool { return f.Error != "" }) {
		status = statusPending
	}
	return writeAdmin(w, status, struct {
		Stores []Flushed `json:"stores"`
	}{flushed})
}

// readFlush reads the body strictly: a name that is misspelt must not flush
// more than was meant.
func readFlush(r *http.Request) (FlushScope, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return FlushScope{}, errors.New("the body is to be JSON, with Content-Type application/json")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxAdminBody+1))
	if err != nil || len(body) > maxAdminBody {
		return FlushScope{}, errors.New("the body is too long, or was cut off")
	}
	var scope FlushScope
	if err := jsonv2.Unmarshal(body, &scope, jsonv2.RejectUnknownMembers(true)); err != nil {
		return FlushScope{}, fmt.Errorf("reading the body: %w; %w", err, ErrFlushScope)
	}
	switch {
	case scope.Tenant == "*":
		return FlushScope{}, errors.New(`for all tenants, say {"all": true}`)
	case scope.Tenant != "" && !isTenantName(scope.Tenant):
		return FlushScope{}, errors.New("that is no tenant's name")
	}
	for _, id := range []string{scope.KCID, scope.MemberID, scope.Issuer} {
		if len(id) > maxAdminID {
			return FlushScope{}, errors.New("an id is too long")
		}
	}
	return scope, nil
}

// maxAdminID bounds an id, in bytes.
const maxAdminID = 1024

// storeStats is how one cache is.
type storeStats struct {
	Store    string     `json:"store"`
	Entries  int        `json:"entries"`
	Bytes    uint64     `json:"bytes"`
	MaxBytes uint64     `json:"max_bytes"`
	Flushes  uint64     `json:"flushes"`
	Logouts  int        `json:"logouts"`
	Redis    string     `json:"redis,omitempty"`
	Log      *logStatus `json:"log,omitempty"`
}

// logStatus is how a node stands to the log of flushes that it shares.
type logStatus struct {
	State    string    `json:"state"`
	Position string    `json:"position,omitempty"`
	Fresh    time.Time `json:"fresh,omitzero"` // when it was last known to be up to date
	Pending  int       `json:"pending"`        // flushes that wait for Redis
}

// assertionStats is what one site has signed, over all reloads that left its
// settings alone.
type assertionStats struct {
	Issuer  string `json:"issuer"`
	Signed  uint64 `json:"signed"`
	Reused  uint64 `json:"reused"`
	Entries int    `json:"entries"`
	Bytes   uint64 `json:"bytes"`
}

func (AdminAPI) stats(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return wrongMethod(w, http.MethodGet)
	}
	answer := struct {
		Stores     []storeStats     `json:"stores"`
		Assertions []assertionStats `json:"assertions,omitempty"`
	}{Stores: []storeStats{}}
	for _, one := range stores.All() {
		stats := one.Stats()
		shown := storeStats{
			Store: one.name, Entries: stats.Entries, Bytes: stats.Bytes, MaxBytes: stats.MaxBytes,
			Flushes: stats.Flushes, Logouts: stats.Logouts,
		}
		if stats.Shared {
			shown.Redis = stats.Redis.String()
			shown.Log = &logStatus{
				State: stats.Log.State.String(), Position: stats.Log.Position, Fresh: stats.Log.Fresh, Pending: stats.Log.Pending,
			}
		}
		answer.Stores = append(answer.Stores, shown)
	}
	for _, one := range signers.All() {
		stats := one.Stats()
		answer.Assertions = append(answer.Assertions, assertionStats{one.issuer, stats.Signed, stats.Reused, stats.Entries, stats.Bytes})
	}
	return writeAdmin(w, statusDone, answer)
}

// statusPending says that not all nodes know of a flush yet.
const statusPending = http.StatusMultiStatus

// statusDone says that what was asked for is in the answer.
const statusDone = http.StatusOK

func badRequest(err error) error {
	return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
}

func wrongMethod(w http.ResponseWriter, allowed string) error {
	w.Header().Set("Allow", allowed)
	return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: errors.New("use " + allowed)}
}

func writeAdmin(w http.ResponseWriter, status int, answer any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(answer)
}

// Interface guard
var _ caddy.AdminRouter = AdminAPI{}

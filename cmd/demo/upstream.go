package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// received is what the application answers with: the request as it arrived.
type received struct {
	Method   string            `json:"method"`
	Path     string            `json:"path"`
	Identity map[string]string `json:"identity"` // headers that tell who the user is, in whatever spelling
	Other    map[string]string `json:"other_headers"`
}

// identityPrefixes begin the names of the default identity headers, as [folded].
var identityPrefixes = []string{"x-user-", "x-tenant-", "x-member-", "x-auth-"}

// echo is the application behind Caddy.
func echo(w http.ResponseWriter, r *http.Request) {
	got := received{Method: r.Method, Path: r.URL.Path, Identity: map[string]string{}, Other: map[string]string{}}
	for name, values := range r.Header {
		value := strings.Join(values, " | ")
		switch {
		case name == "Authorization":
			got.Other[name] = shortened(value)
		case slices.ContainsFunc(identityPrefixes, func(prefix string) bool { return strings.HasPrefix(folded(name), prefix) }):
			got.Identity[name] = value
		default:
			got.Other[name] = value
		}
	}
	w.Header().Set("Content-Type", "application/json")
	answer := json.NewEncoder(w)
	answer.SetIndent("", "  ")
	_ = answer.Encode(got) // the client's loss if it has gone
}

// folded is a header's name as applications see it that take `_` and `.` for `-`.
func folded(name string) string {
	return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
}

// shortened keeps the token off the screen.
func shortened(credential string) string {
	const shown = len("Bearer eyJ")
	if len(credential) <= shown {
		return credential
	}
	return fmt.Sprintf("%s… (%d bytes)", credential[:shown], len(credential))
}

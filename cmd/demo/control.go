package main

import (
	"fmt"
	"net/http"
)

// controls does what the printed POST lines ask for: what the application would do
// to its database, an administrator in Keycloak, and an operator to Caddy.
func (d *demo) controls() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /members/{tenant}/{user}/deactivate", func(w http.ResponseWriter, r *http.Request) { d.setActive(w, r, false) })
	mux.HandleFunc("POST /members/{tenant}/{user}/activate", func(w http.ResponseWriter, r *http.Request) { d.setActive(w, r, true) })
	mux.HandleFunc("POST /keys/rotate", func(w http.ResponseWriter, r *http.Request) {
		if err := d.realm.rotate(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		fmt.Fprintln(w, "A new key signs from now on; the old ones are still published.")
	})
	mux.HandleFunc("POST /caddy/restart", func(w http.ResponseWriter, _ *http.Request) {
		if err := d.caddy.restart(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "Caddy has been restarted; its memory is empty.")
	})
	return mux
}

func (d *demo) setActive(w http.ResponseWriter, r *http.Request, active bool) {
	user, tenant := r.PathValue("user"), r.PathValue("tenant")
	found, err := d.members.setActive(r.Context(), user, tenant, active)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case !found:
		http.Error(w, "no such member", http.StatusNotFound)
	default:
		fmt.Fprintf(w, "active = %t for %s at %s, in the database.\n", active, user, tenant)
	}
}

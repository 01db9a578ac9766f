package main

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// print shows what runs and what to try.
func (d *demo) print(w io.Writer) {
	d.printParts(w)
	d.printMembers(w)
	fmt.Fprintf(w, "Paste this first, into bash or zsh. It logs a user in and prints the access token.\n\n%s\n", d.tokenFunction())
	for _, r := range d.requests() {
		fmt.Fprintf(w, "\n# %s → %s\n%s\n", r.title, r.want, r.curl())
	}
	fmt.Fprintf(w, "\nCtrl-C ends it.\n")
}

// printParts shows what is where.
func (d *demo) printParts(w io.Writer) {
	cache := "memory"
	if d.opts.redis != "" {
		cache = "memory, then Redis"
	}
	fmt.Fprintf(w, "Caddy with keycloak_cache_auth runs at http://%s\n", d.site)
	if d.opts.listen == "" && d.site != defaultListen {
		fmt.Fprintf(w, "(%s cannot be had; choose an address with -listen)\n", defaultListen)
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"Keycloak", d.realm.about},
		{"Members", d.members.about},
		{"Cache", fmt.Sprintf("%s, for %s", cache, d.opts.ttl)},
		{"Application", "http://" + d.upstreamAddr + ", answers with what it received"},
		{"Caddyfile", filepath.Join(d.dir, "Caddyfile")},
	} {
		fmt.Fprintf(table, "  %s\t%s\n", row[0], row[1])
	}
	_ = table.Flush() // there is nobody to tell if the terminal is gone
	fmt.Fprintln(w)
}

// printMembers shows who is what where.
func (d *demo) printMembers(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "  User\tat %s\tat %s\n", acme, globex)
	for _, user := range slices.Sorted(slices.Values(users)) {
		fmt.Fprintf(table, "  %s\t%s\t%s\n", user, place(user, acme), place(user, globex))
	}
	_ = table.Flush()
	fmt.Fprintln(w)
}

func place(user, tenant string) string {
	m, ok := find(user, tenant)
	if !ok {
		return "-"
	}
	text := strings.Join(m.roles, ", ")
	if !m.active {
		text += " (inactive)"
	}
	return text
}

// tokenFunction defines `token <user>` in the shell, so that every line below asks
// for a token that has not expired, and stays short. sed takes the token out of the
// JSON, for lack of a better tool that is everywhere.
func (d *demo) tokenFunction() string {
	return `token() { curl -s ` + d.realm.tokenURL + ` \
  -d grant_type=password -d client_id=` + clientID + ` -d "username=$1" -d "password=$1" |
  sed 's/.*"access_token":"\([^"]*\)".*/\1/'; }`
}

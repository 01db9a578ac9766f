package main

import (
	"net/http"
	"strings"
	"time"
)

// request is one request to try: a curl line for people, and what -check sends.
type request struct {
	title string
	want  string // what is to be seen, in a few words

	post   bool
	url    string // without `http://`, which curl adds
	token  bearer
	tenant string
	header []string // more of them, `Name: value`

	// keep makes the token of that user, obtained before this request, the one
	// that a later bearer{kept: true} shows.
	keep string

	// only is the beginning of the lines of a long answer that matter.
	only string

	status int
	also   []expectation

	// within is for what takes time: -check repeats the request for so long.
	within time.Duration
}

// bearer is the token of a request. The zero value is none.
type bearer struct {
	user    string // a new token of that user
	kept    bool   // the one that was kept
	changed bool   // with another signature
}

// requests are all that is printed, in the order in which they make sense.
func (d *demo) requests() []request {
	orders := d.site + "/orders"
	alice := request{url: orders, token: bearer{user: "alice"}, tenant: acme, status: http.StatusOK}

	list := []request{
		alice.as("alice is a member of acme", "200, found by the resolver", cameFrom("resolver"), isUser(d.realm.ids["alice"], acme)),
		alice.as("the same again", "200, from memory", cameFrom("memory")).in(5 * time.Second),
	}
	if d.opts.redis != "" {
		list = append(list,
			d.order("restart Caddy: its memory is empty then", "/caddy/restart"),
			alice.as("the same again", "200, from Redis", cameFrom("redis")))
	}
	changed := alice
	changed.token.changed = true
	forged := alice
	forged.header = []string{"X-User-ID: admin", "X_User_Roles: admin", "X-Auth-Status: admin"}
	public := request{url: d.site + "/public/prices", header: forged.header, status: http.StatusOK}
	list = append(list,
		request{url: orders, token: bearer{user: "bob"}, tenant: globex, status: http.StatusOK}.
			as("bob is a member of globex", "200", isUser(d.realm.ids["bob"], globex)),
		request{url: orders, token: bearer{user: "bob"}, tenant: acme, status: http.StatusForbidden}.
			as("bob is none of acme", "403 not_a_member", mentions("not_a_member")),
		request{url: orders, token: bearer{user: "carol"}, tenant: acme, status: http.StatusForbidden}.
			as("carol is one of acme, but not active", "403 member_inactive", mentions("member_inactive")),
		request{url: orders, tenant: acme, status: http.StatusUnauthorized}.
			as("no token", "401, Www-Authenticate: Bearer", challenges(`Bearer`), mentions("missing_token")),
		request{url: orders, token: changed.token, tenant: acme, status: http.StatusUnauthorized}.
			as("a token with a changed signature", "401, invalid_token", challenges(`Bearer error="invalid_token"`)),
		request{url: orders, token: alice.token, status: http.StatusBadRequest}.
			as("no tenant", "400 tenant_missing", mentions("tenant_missing")),
		forged.as("forged identity headers", "200, the application sees alice", isUser(d.realm.ids["alice"], acme), sees("admin", false)),
		public.as("the same on a route without login", "200, the application sees nobody", isNobody(), sees("admin", false)),
	)
	return append(list, d.changes(alice)...)
}

// changes are the requests around what changes while Caddy runs.
func (d *demo) changes(alice request) []request {
	rotate := d.order("a new signing key, and a token of the old one to keep", "/keys/rotate")
	rotate.keep = "alice"
	old := alice
	old.token = bearer{kept: true}
	refused := alice
	refused.status = http.StatusForbidden
	patience := d.opts.ttl + 10*time.Second // a slow machine's

	return []request{
		rotate,
		alice.as("a token of the new key", "200, its key was fetched").in(patience),
		old.as("the token of the old key", "200, until it expires"),
		d.order("alice leaves acme: a change in the database", "/members/acme/alice/deactivate"),
		refused.as("the same as at first", "200 from memory, then 403 member_inactive: within "+d.opts.ttl.String(), mentions("member_inactive")).in(patience),
		d.order("alice comes back", "/members/acme/alice/activate"),
		alice.as("the same as at first", "200", isUser(d.realm.ids["alice"], acme)).in(patience),
		request{url: d.admin + "/metrics", only: "caddy_keycloak_cache_auth_requests", status: http.StatusOK}.
			as("how the requests were decided, from the metrics of Caddy", "counts", mentions("\ncaddy_keycloak_cache_auth_requests_total{")),
	}
}

// order is a request to the demo itself.
func (d *demo) order(title, path string) request {
	return request{title: title, want: "200", post: true, url: d.control + path, status: http.StatusOK}
}

func (r request) as(title, want string, also ...expectation) request {
	r.title, r.want, r.also = title, want, also
	return r
}

func (r request) in(d time.Duration) request {
	r.within = d
	return r
}

// curl is the request as a line for the shell, below [tokenFunction].
func (r request) curl() string {
	var b strings.Builder
	if r.keep != "" {
		b.WriteString("OLD=$(token " + r.keep + "); ")
	}
	shown := "-i"
	if r.only != "" {
		shown = "-s"
	}
	b.WriteString("curl " + shown + " " + r.url)
	if r.post {
		b.WriteString(" -X POST")
	}
	if token := r.token.shell(); token != "" {
		b.WriteString(` -H "Authorization: Bearer ` + token + `"`)
	}
	for _, header := range r.headers() {
		b.WriteString(" -H '" + header + "'")
	}
	if r.only != "" {
		b.WriteString(" | grep ^" + r.only)
	}
	return b.String()
}

// headers are all but the token's.
func (r request) headers() []string {
	if r.tenant == "" {
		return r.header
	}
	return append([]string{"X-Tenant-ID: " + r.tenant}, r.header...)
}

// shell is the token as the shell finds it.
func (b bearer) shell() string {
	token := ""
	switch {
	case b.kept:
		token = "$OLD"
	case b.user != "":
		token = "$(token " + b.user + ")"
	}
	if b.changed {
		token += "AA"
	}
	return token
}

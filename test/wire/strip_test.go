package wire_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// tenantHeader names the tenant of the site's requests, and is owned.
const tenantHeader = "X-Tenant-ID"

// owned are the headers that no client may send to an upstream.
var owned = []string{
	"X-User-ID", "X-User-Name", "X-User-Email", "X-User-Roles", tenantHeader, "X-Member-ID", "X-Auth-Status", "X-User-Assertion",
}

// ownedByCustom is owned where `header` lines replace the default set.
const ownedByCustom = "X-Plan"

// spellings are what some upstream takes for the same header.
var spellings = []struct {
	name  string
	spell func(string) string
}{
	{"as it is", func(name string) string { return name }},
	{"upper case", strings.ToUpper},
	{"underscores", func(name string) string { return strings.ReplaceAll(name, "-", "_") }},
	{"dots", func(name string) string { return strings.ReplaceAll(name, "-", ".") }},
	{"underscore and dot", func(name string) string { return strings.Replace(strings.Replace(name, "-", "_", 1), "-", ".", 1) }},
	{"tildes", func(name string) string { return strings.ReplaceAll(name, "-", "~") }},
	{"plus and apostrophe", func(name string) string { return strings.Replace(strings.Replace(name, "-", "+", 1), "-", "'", 1) }},
	{endSpace, func(name string) string { return name + " " }},
}

// places are where in a request a client may put a forged field.
var places = []struct {
	name string
	put  func(r *request, name string)
}{
	{"header", func(r *request, name string) {
		r.fields = append(r.fields, field{Name: name, Value: forged})
	}},
	{"header sent twice", func(r *request, name string) {
		r.fields = append(r.fields, field{Name: name, Value: forged}, field{Name: name, Value: forged})
	}},
	{"trailer, announced", func(r *request, name string) {
		r.announced = []string{benignTrailer, name}
		r.fields = append(r.fields, field{benignTrailer, benign, true}, field{name, forged, true})
	}},
	{"trailer, the only one announced", func(r *request, name string) {
		r.announced = []string{name}
		r.fields = append(r.fields, field{name, forged, true}, field{benignTrailer, benign, true})
	}},
	{"trailer, another one announced", func(r *request, name string) {
		r.announced = []string{benignTrailer}
		r.fields = append(r.fields, field{benignTrailer, benign, true}, field{name, forged, true})
	}},
	{"trailer, nothing announced", func(r *request, name string) {
		r.fields = append(r.fields, field{benignTrailer, benign, true}, field{name, forged, true})
	}},
	{"Connection", func(r *request, name string) {
		r.fields = append(r.fields, field{Name: "connection", Value: "keep-alive, " + name})
	}},
	{"Connection with Upgrade", func(r *request, name string) {
		r.fields = append(r.fields, field{Name: "connection", Value: name}, field{Name: "connection", Value: "upgrade"},
			field{Name: "upgrade", Value: "something"})
	}},
}

const (
	forged        = "forged"
	benign        = "kept"
	benignHeader  = "x-benign"
	benignTrailer = "x-checksum"

	// endSpace is the spelling that is no name at all (RFC 9110 section 5.1).
	endSpace = "a space at the end"

	// neighbour takes the place of an owned name where the two are compared.
	neighbour = "X-User-Idea"
)

// way is one way through the handler.
type way struct {
	path     string
	method   string
	token    bool
	identity func(*site) map[string]string // what the upstream must get, in the spelling of [fold]
	route    string                        // the route that it gets it by
}

func nobody(*site) map[string]string { return nil }

func anonymous(*site) map[string]string { return map[string]string{"x-auth-status": "anonymous"} }

func customMember(*site) map[string]string { return map[string]string{"x-plan": memberPlan} }

func defaultMember(s *site) map[string]string {
	return map[string]string{
		"x-user-id": s.user.ID, "x-user-name": s.user.Username, "x-user-email": s.user.Email,
		"x-user-roles": memberRole, "x-tenant-id": tenant, "x-member-id": memberID, "x-auth-status": "member",
	}
}

var ways = []way{
	{"member", "POST", true, defaultMember, "normal"},
	{"custom", "POST", true, customMember, "normal"},
	{"optional", "POST", false, anonymous, "normal"},
	{"preflight", "OPTIONS", false, anonymous, "normal"},
	{"strip_only", "POST", false, nobody, "normal"},
	{"refused", "POST", false, nobody, "error"},
	{"refused_copy", "POST", false, nobody, "error"},
	{"failed", "POST", true, defaultMember, "error"},
	{"failed_copy", "POST", true, defaultMember, "error"},
}

// owned returns the names that no client may use on this way.
func (w way) owned() []string {
	if w.path == "custom" {
		return append(slices.Clone(owned), ownedByCustom)
	}
	return owned
}

// bare has no handler in its way: what it lets through shows what Caddy alone
// does.
var bare = way{"bare", "POST", true, nil, "normal"}

// clients are who attacks, by the protocol and the listener.
func (s *site) clients() map[string]probe {
	asItIs := func(name string) string { return name }
	// names in HTTP/2 are in lower case (RFC 9113 section 8.2)
	return map[string]probe{
		"http1":             {site: s, client: http1Client{}, addr: s.plain, spell: asItIs, thorough: true},
		"http1 filters off": {site: s, client: http1Client{}, addr: s.open, spell: asItIs},
		"h2c":               {site: s, client: http2Client{}, addr: s.plain, spell: strings.ToLower, thorough: true},
		"h2c filters off":   {site: s, client: http2Client{}, addr: s.open, spell: strings.ToLower},
		"h2 over TLS":       {site: s, client: http2Client{localhostTLS()}, addr: s.tls, spell: strings.ToLower},
	}
}

var upstreams = []string{"h1", "h2", "fcgi"}

// No copy of an owned header that a client sends reaches an upstream, whatever
// its spelling, its place in the request, the way through the handler and the
// protocols; and the identity does not get lost.
func TestNoForgedHeaderReachesAnUpstream(t *testing.T) {
	s := startSite(t)
	clients := s.clients()
	var attacks atomic.Int64
	t.Run("attacks", func(t *testing.T) {
		for name, p := range clients {
			for _, upstream := range upstreams {
				t.Run(fmt.Sprintf("SP-003 from %s to %s", name, upstream), func(t *testing.T) {
					t.Parallel()
					p := p
					p.upstream = upstream
					tried, leaked := p.attackAll(t)
					attacks.Add(tried)
					if leaked == 0 {
						t.Error("without the handler no attack reaches the upstream either: they are no attacks")
					}
					t.Logf("%d attacks; without the handler, %d of %d reach the upstream", tried, leaked, len(spellings)*len(places))
				})
			}
		}
	})
	// Every spelling in every place, on every way, from every client to every
	// upstream: with every name on the way of a member, from the two thorough
	// clients; elsewhere with a name of its own each.
	each := len(spellings) * len(places) * len(upstreams)
	want := each * (len(clients)*len(ways) + 2*(len(owned)-1))
	got := attacks.Load()
	t.Logf("%d attacks tried", got)
	if got != int64(want) {
		t.Errorf("%d attacks were tried, want %d", got, want)
	}
}

// probe sends attacks from one kind of client to one kind of upstream.
type probe struct {
	site     *site
	client   client
	addr     string
	upstream string
	spell    func(string) string // what the protocol does to names
	thorough bool
}

// attackAll returns how many attacks it tried, and how many of those that it
// tried where no handler is reached the upstream.
func (p probe) attackAll(t *testing.T) (tried, leaked int64) {
	t.Helper()
	for i, place := range places {
		// what Caddy itself does to the benign parts of such a request
		status, want := p.send(t, p.build(bare, place.put, neighbour))
		if status != 200 && p.upstream != "fcgi" && place.name != "Connection" && place.name != "Connection with Upgrade" {
			t.Errorf("%s: answered %d without the handler and with nothing forged", place.name, status)
		}
		for j, spelling := range spellings {
			_, fields := p.send(t, p.build(bare, place.put, spelling.spell("X-User-ID")))
			if slices.ContainsFunc(fields, func(f field) bool {
				return strings.Contains(f.Value, forged) || f.Trailer && isOwned(fold(f.Name))
			}) {
				leaked++
			}
			for k, w := range ways {
				names := w.owned()
				if !p.thorough || k > 0 {
					n := (i + j + k) % len(names)
					names = names[n : n+1]
				}
				for _, name := range names {
					tried++
					p.attack(t, w, attack{place.name, spelling.name, name, p.build(w, place.put, spelling.spell(name))}, status, want)
				}
			}
		}
	}
	return tried, leaked
}

// attack is one forged field.
type attack struct {
	place, spelling, name string
	request               request
}

// attack tries one. Without the handler and with nothing forged, such a
// request is answered with the status, and the upstream gets those fields.
func (p probe) attack(t *testing.T, w way, a attack, bareStatus int, bareFields []field) {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Errorf("%s %s, %s in %s: %s\nsent: %v announcing %q", a.request.method, a.request.path, a.name, a.place,
			fmt.Sprintf(format, args...), a.request.fields, a.request.announced)
	}
	status, fields := p.send(t, a.request)
	if status != 200 {
		// names hold no space (RFC 9112 section 5.1); else only what Caddy
		// refuses by itself is not passed on
		if bareStatus == 200 && a.spelling != endSpace && !p.abandoned(w, a) {
			fail("answered %d, not passed on", status)
		}
		return
	}
	p.check(w, fields, a.ambiguous(w), fail)
	if got, want := trailersOf(fields), trailersOf(bareFields); !slices.Equal(got, want) {
		fail("the benign trailers are %v, and %v without the handler", got, want)
	}
}

// abandoned tells whether an error route cannot read the body: it ends with
// trailers that nothing could filter there.
func (p probe) abandoned(w way, a attack) bool {
	return p.client == client(http1Client{}) && (w.route == "error" || a.ambiguous(w)) && len(a.request.announced) > 0
}

// ambiguous tells whether the request names the tenant more than once, which
// is refused: an upstream might take the other one.
func (a attack) ambiguous(w way) bool {
	return w.token && strings.HasPrefix(a.place, "header") && a.name == tenantHeader &&
		(a.spelling == "as it is" || a.spelling == "upper case")
}

// build makes the request of one attack.
func (p probe) build(w way, put func(*request, string), name string) request {
	r := request{method: w.method, path: "/" + w.path + "/" + p.upstream}
	r.fields = []field{{Name: benignHeader, Value: benign}, {Name: "x-tenant-id", Value: tenant}}
	if w.token {
		r.fields = append(r.fields, field{Name: "authorization", Value: "Bearer " + p.site.token})
	}
	if w.method == "OPTIONS" {
		r.fields = append(r.fields, field{Name: "origin", Value: "https://app.example"},
			field{Name: "access-control-request-method", Value: "GET"})
	}
	put(&r, p.spell(name))
	return r
}

// send returns the status, and what the upstream got if it was asked.
func (p probe) send(t *testing.T, r request) (int, []field) {
	t.Helper()
	got, err := p.client.send(p.addr, r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.method, r.path, err)
	}
	if got.status != 200 {
		return got.status, nil
	}
	var fields []field
	if err := json.Unmarshal(got.body, &fields); err != nil {
		t.Fatalf("%s %s: no upstream answered: %q", r.method, r.path, got.body)
	}
	return got.status, fields
}

// check compares what the upstream got with what it should have got.
func (p probe) check(w way, fields []field, refused bool, fail func(string, ...any)) {
	identity, route := w.identity(p.site), w.route
	if refused {
		identity, route = nil, "error"
	}
	got := make(map[string][]string)
	for _, f := range fields {
		if strings.Contains(f.Value, forged) {
			fail("the upstream got %+v", f)
		}
		name := fold(f.Name)
		if f.Trailer && isOwned(name) {
			fail("the upstream got the trailer %+v", f)
		}
		got[name] = append(got[name], f.Value)
	}
	for _, name := range append(slices.Clone(owned), ownedByCustom) {
		name = fold(name)
		want, known := identity[name]
		switch values := got[name]; {
		case !known && len(values) > 0 && (name != fold(ownedByCustom) || w.path == "custom"):
			fail("the upstream got %s: %q, want none", name, values)
		case known && !slices.Equal(values, []string{want}):
			fail("the upstream got %s: %q, want %q alone", name, values, want)
		}
	}
	if values := got[benignHeader]; !slices.Equal(values, []string{benign}) {
		fail("the upstream got %s: %q, want %q", benignHeader, values, benign)
	}
	if values := got["x-route"]; !slices.Equal(values, []string{route}) {
		fail("the upstream was asked by the route %q, want %q", values, route)
	}
}

// fold brings the spellings of a name together, on its own terms: not by the
// code under test.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
}

func isOwned(folded string) bool {
	return slices.ContainsFunc(owned, func(name string) bool { return fold(name) == folded })
}

// trailersOf returns the benign trailers, in order.
func trailersOf(fields []field) []string {
	var trailers []string
	for _, f := range fields {
		if f.Trailer && fold(f.Name) == benignTrailer {
			trailers = append(trailers, fold(f.Name)+": "+f.Value)
		}
	}
	return trailers
}

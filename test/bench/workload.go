package main

import (
	"math/rand/v2"
	"net/http"
)

// person is a user with a token.
type person struct {
	id    string // the token's sub
	token string
}

// visits are requests of people to tenants. They hold besides token and tenant what a
// browser's script would send: User-Agent, Accept and Accept-Language.
type visits struct {
	people  []person
	tenants []string

	// pick chooses who comes to which tenant, by the number of the request.
	pick func(seq int) (person, tenant int)

	// identity is what the application must be told, for the sample of requests that
	// ask for it.
	identity func(p person, tenant string) string

	// userHeader adds X-Bench-User, for the handler that reads no token.
	userHeader bool

	// always asks for the identity each time; it is what the upstream answers.
	always bool

	status int // 200 if not set
}

// sampleEvery is how many requests there are for each whose identity is checked.
const sampleEvery = 64

// requestHead is what all requests begin with. Bare Caddys get the same.
const requestHead = "GET /api/things?page=2 HTTP/1.1\r\nHost: app.example.test\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
	"Accept: application/json\r\nAccept-Language: en-GB,en;q=0.5\r\nAuthorization: Bearer "

func (v *visits) next(seq int, out []byte) ([]byte, want) {
	who, where := v.pick(seq)
	p, tenant := v.people[who], v.tenants[where]
	out = append(out, requestHead...)
	out = append(out, p.token...)
	out = append(out, "\r\nX-Tenant-ID: "...)
	out = append(out, tenant...)
	if v.userHeader {
		out = append(out, "\r\nX-Bench-User: "...)
		out = append(out, p.id...)
	}
	expected := want{status: v.status}
	if v.status == 0 {
		expected.status = http.StatusOK
	}
	if seq%sampleEvery == sampleEvery-1 {
		if !v.always {
			out = append(out, "\r\nX-Bench-Who: 1"...)
		}
		if v.identity != nil {
			expected.body = v.identity(p, tenant)
		}
	}
	return append(out, "\r\n\r\n"...), expected
}

// one always picks the same.
func one(int) (person, tenant int) { return 0, 0 }

// inTurn goes through all tenants of the first person, then of the second, and so on.
func inTurn(people, tenants int) func(int) (int, int) {
	return func(seq int) (int, int) { return seq / tenants % people, seq % tenants }
}

// atRandom picks any person and any tenant, by a seed: the same in each run.
func atRandom(people, tenants int) func(int) (int, int) {
	source := rand.New(rand.NewPCG(7, 7))
	return func(int) (int, int) { return source.IntN(people), source.IntN(tenants) }
}

// Who the application must be told a request is from.

// nobody is what a Caddy tells that does not authenticate.
func nobody(_ person, tenant string) string { return "|" + tenant + "|" }

// memberOf is what the module tells.
func memberOf(p person, tenant string) string { return p.id + "|" + tenant + "|m-" + p.id }

// userOf is what a handler tells that knows no members.
func userOf(p person, tenant string) string { return p.id + "|" + tenant + "|" }

// somebody is what forward_auth tells whose server lets everybody in.
func somebody(_ person, tenant string) string { return "somebody|" + tenant + "|" }

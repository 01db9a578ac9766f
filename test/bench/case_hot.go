package main

import (
	"context"
	"fmt"
	"math"
	"time"
)

// oneMember are requests of one user to one tenant, again and again.
func (b *bench) oneMember(identity func(person, string) string) *visits {
	return &visits{people: b.crowd.different(1), tenants: tenantNames(1), pick: one, identity: identity}
}

// respondCase measures the hot path where there is nothing else: the dearest case.
func (b *bench) respondCase(o *owner) error {
	bare, err := b.steady(o, "bare respond", b.startSite(o, respond), b.oneMember(nobody))
	if err != nil {
		return err
	}
	hot := b.startSite(o, b.login(askNobody)+respond)
	known, err := b.steady(o, "member, respond", hot, b.oneMember(memberOf))
	if err != nil {
		return err
	}
	nothing, err := b.steady(o, "a handler that does nothing, respond", b.startSite(o, null+respond), b.oneMember(nobody))
	if err != nil {
		return err
	}
	floor, err := b.steady(o, "the least there is to do, respond", b.startSite(o, floor+respond), b.oneMember(memberOf))
	if err != nil {
		return err
	}
	verifying, err := b.steady(o, "go-oidc each time, respond", b.startSite(o, b.verify()+respond), b.oneMember(userOf))
	if err != nil {
		return err
	}
	socket, err := b.against(o, "a socket (the load generator's limit)", b.upstream.socket, []int{b.upstream.pid}, b.oneMember(nil))
	if err != nil {
		return err
	}
	results, err := b.contest(o.ctx, "respond", b.Rounds, bare, known, nothing, floor, verifying, socket)
	if err != nil {
		return err
	}
	least := median(ratios(results[3].PerSecond, results[0].PerSecond))
	b.compared(keyRespond, results[1], results[0], fmt.Sprintf("the least there is to do: %.2f", least))
	return b.hotPathOf(o, "respond", hot, known)
}

// verify is the directive that verifies tokens with go-oidc.
func (b *bench) verify() string {
	return fmt.Sprintf("\n\tbench_verify %s %s %s", b.crowd.realm.Issuer(), b.crowd.realm.JWKSURL(), audience)
}

// proxyCase measures the hot path in front of an application.
func (b *bench) proxyCase(o *owner) error {
	behind := fmt.Sprintf(proxy, b.upstream.addr)
	asking := fmt.Sprintf("\n\tforward_auth %s {\n\t\turi /auth\n\t\tcopy_headers X-User-ID\n\t}", b.upstream.addr)
	sites := []struct {
		name, directives string
		identity         func(person, string) string
	}{
		{"bare reverse_proxy", behind, nobody},
		{"member, reverse_proxy", b.login(askNobody) + behind, memberOf},
		{"forward_auth, reverse_proxy", asking + behind, somebody},
	}
	contenders := make([]*contender, len(sites))
	for i, s := range sites {
		visits := b.oneMember(s.identity)
		visits.always = true
		var err error
		if contenders[i], err = b.steady(o, s.name, b.startSite(o, s.directives), visits); err != nil {
			return err
		}
	}
	results, err := b.contest(o.ctx, "proxy", b.Rounds, contenders...)
	if err != nil {
		return err
	}
	b.compared(keyProxy, results[1], results[0], "")
	return nil
}

// latencyCase measures what users wait at half the load that bare Caddy can bear.
func (b *bench) latencyCase(o *owner) error {
	bare, err := b.steady(o, "bare respond", b.startSite(o, respond), b.oneMember(nobody))
	if err != nil {
		return err
	}
	known, err := b.steady(o, "member, respond", b.startSite(o, b.login(askNobody)+respond), b.oneMember(memberOf))
	if err != nil {
		return err
	}
	most, err := compete(o.ctx, turns{b.fewRounds(), b.Warmup, b.LeadIn}, bare)
	if err != nil {
		return err
	}
	rate := math.Floor(most[0].rate() / 2)
	for _, c := range []*contender{bare, known} {
		c.run = func(ctx context.Context, l *load) (measured, error) { return l.open(ctx, 2*b.Duration, rate) }
	}
	results, err := b.contest(o.ctx, "latency", b.fewRounds(), bare, known)
	if err != nil {
		return err
	}
	of, to := results[1].p99s(), results[0].p99s()
	b.report.set(keyLatency, ratios(of, to), fmt.Sprintf("at %.0f requests/s: %s, bare %s", rate, micros(median(of)), micros(median(to))))
	return nil
}

func micros(us float64) string {
	return time.Duration(us * float64(time.Microsecond)).Round(time.Microsecond).String()
}

// null is the directive of a handler that does nothing.
const null = "\n\tbench_null"

// floor is the directive of one that remembers tokens and tells who the user is, and
// decides nothing.
const floor = "\n\tbench_floor"

// allocationCase counts what the handler allocates, the whole way from its being
// called to its headers, as the difference to the count with a handler that does
// nothing: what calling one more costs is Caddy's.
func (b *bench) allocationCase(o *owner) error {
	count := func(directives string, v *visits) (mallocs, bytes float64, err error) {
		s := b.startSite(o, directives)
		c, err := b.steady(o, "", s, v)
		if err != nil {
			return 0, 0, err
		}
		requests := 200 * b.Connections
		if _, err := c.load.closed(o.ctx, 0, requests); err != nil { // pools are full then
			return 0, 0, err
		}
		read := func() (mallocs, bytes float64) {
			return s.metric("go_memstats_mallocs_total"), s.metric("go_memstats_alloc_bytes_total")
		}
		// reading allocates too: as much each time
		m0, b0 := read()
		m1, b1 := read()
		if _, err := c.load.closed(o.ctx, 0, requests); err != nil {
			return 0, 0, err
		}
		m2, b2 := read()
		return (m2 - m1 - (m1 - m0)) / float64(requests), (b2 - b1 - (b1 - b0)) / float64(requests), nil
	}
	bareMallocs, bareBytes, err := count(respond, b.oneMember(nobody))
	if err != nil {
		return err
	}
	nullMallocs, nullBytes, err := count(null+respond, b.oneMember(nobody))
	if err != nil {
		return err
	}
	mallocs, bytes, err := count(b.login(askNobody)+respond, b.oneMember(memberOf))
	if err != nil {
		return err
	}
	b.report.set(keyObjects, []float64{mallocs - nullMallocs},
		fmt.Sprintf("a handler that does nothing: %.1f, bare Caddy: %.1f", nullMallocs, bareMallocs))
	b.report.set(keyBytes, []float64{bytes - nullBytes},
		fmt.Sprintf("a handler that does nothing: %.0f, bare Caddy: %.0f", nullBytes, bareBytes))
	return nil
}

package main

import (
	"context"
	"fmt"
	"time"
)

// filled starts a site whose memory holds all these people in all these tenants.
func (b *bench) filled(o *owner, name string, people []person, tenants []string, options ...string) (*site, error) {
	s := b.startSite(o, b.login(append(options, askNobody, lastLong)...)+respond)
	if err := b.fill(o, name, s, people, tenants); err != nil {
		return nil, err
	}
	return s, nil
}

// fill has each person visit each tenant once.
func (b *bench) fill(o *owner, name string, s *site, people []person, tenants []string) error {
	begun := time.Now()
	members := len(people) * len(tenants)
	l, err := newLoad(s.Addr, b.Connections, &visits{
		people: people, tenants: tenants, pick: inTurn(len(people), len(tenants)), identity: memberOf,
	})
	if err != nil {
		return err
	}
	defer l.close()
	if _, err := l.closed(o.ctx, 0, members); err != nil {
		return fmt.Errorf("filling memory: %w", err)
	}
	entries, bytes := s.held()
	b.say("  %-9s %d members in %s; memory holds %d, %.0f MiB by its own count",
		name, members, time.Since(begun).Round(100*time.Millisecond), entries, float64(bytes)/(1<<20))
	return nil
}

// spreadCase compares many members, each with a token of his own, with one.
func (b *bench) spreadCase(o *owner) error {
	people, err := b.people(func() []person { return b.crowd.different(b.Users) })
	if err != nil {
		return err
	}
	tenants := tenantNames(b.Tenants)
	large := memoryOf("2GiB")
	alone := b.startSite(o, b.login(large, askNobody, lastLong)+respond)
	crowded, err := b.filled(o, "spread", people, tenants, large)
	if err != nil {
		return err
	}
	single, err := b.steady(o, "one member", alone, b.oneMember(memberOf))
	if err != nil {
		return err
	}
	many, err := b.steady(o, fmt.Sprintf("%d users × %d tenants", len(people), len(tenants)), crowded,
		&visits{people: people, tenants: tenants, pick: atRandom(len(people), len(tenants)), identity: memberOf})
	if err != nil {
		return err
	}
	before := crowded.metric(resolverCalls)
	results, err := b.contest(o.ctx, "spread", b.Rounds, single, many)
	if err != nil {
		return err
	}
	b.compared(keySpread, results[1], results[0], missedMemory(crowded, before))
	return b.profileOf(o, "spread", crowded, many)
}

// missedMemory is a remark on look-ups that memory could not answer after all.
func missedMemory(s *site, before float64) string {
	if missed := s.metric(resolverCalls) - before; missed > 0 {
		return fmt.Sprintf("memory missed %.0f times", missed)
	}
	return ""
}

// resolverCalls is the metric of calls to resolvers, and lookups that of look-ups.
const (
	resolverCalls = "caddy_keycloak_cache_auth_resolver_duration_seconds_count"
	lookups       = "caddy_keycloak_cache_auth_lookups_total"
)

// sizeCase compares a memory with very many members to one with few. The same users
// come to both, with as many tokens; there to all of their tenants, here to one. It
// also tells what a member takes.
func (b *bench) sizeCase(o *owner) error {
	people, err := b.people(func() []person { return b.crowd.different(b.FewUsers) })
	if err != nil {
		return err
	}
	tenants := tenantNames(b.Many)
	large := memoryOf("2GiB")
	small, err := b.filled(o, "size", people, tenants[:1], large)
	if err != nil {
		return err
	}
	big, err := b.filled(o, "size", people, tenants[:1], large)
	if err != nil {
		return err
	}
	empty := big.heap()
	if err := b.fill(o, "size", big, people, tenants); err != nil {
		return err
	}
	members := len(people) * len(tenants)
	held, counted := big.held()
	b.report.set(keyHeap, []float64{(big.heap() - empty) / float64(held-len(people)) / 1024},
		fmt.Sprintf("%d members; the cache counts %.2f KiB for each", held, float64(counted)/float64(held)/1024))

	few, err := b.steady(o, fmt.Sprintf("memory of %d members", len(people)), small,
		&visits{people: people, tenants: tenants[:1], pick: atRandom(len(people), 1), identity: memberOf})
	if err != nil {
		return err
	}
	full, err := b.steady(o, fmt.Sprintf("memory of %d members", members), big,
		&visits{people: people, tenants: tenants, pick: atRandom(len(people), len(tenants)), identity: memberOf})
	if err != nil {
		return err
	}
	before := big.metric(resolverCalls)
	results, err := b.contest(o.ctx, "size", b.Rounds, few, full)
	if err != nil {
		return err
	}
	b.compared(keySize, results[1], results[0], missedMemory(big, before))
	return nil
}

// firstCase has tokens come that were never seen before: each round begins with a new
// process. The member is in memory, so that only the token is new.
func (b *bench) firstCase(o *owner) error {
	const warmers = 20 // for each connection
	warm := warmers * b.Connections
	people, err := b.people(func() []person { return b.crowd.renewed(warm + b.Tokens) })
	if err != nil {
		return err
	}
	fresh := func(name, directives string, identity func(person, string) string) *contender {
		c := &contender{name: name}
		round := &owner{ctx: o.ctx} // what it starts ends with the round
		o.Cleanup(func() { o.join(round.end()) })
		visit := func(people []person) *visits {
			return &visits{people: people, tenants: tenantNames(1), pick: inTurn(len(people), 1), identity: identity}
		}
		c.prepare = func() error {
			if err := round.end(); err != nil {
				return err
			}
			s := b.startSite(round, directives)
			first, err := b.steady(round, name, s, visit(people[:warm]))
			if err != nil {
				return err
			}
			if _, err := first.load.closed(o.ctx, 0, warm); err != nil {
				return fmt.Errorf("warming up: %w", err)
			}
			again, err := b.steady(round, name, s, visit(people[warm:]))
			if err != nil {
				return err
			}
			c.load, c.pids = again.load, again.pids
			return nil
		}
		c.run = func(ctx context.Context, l *load) (measured, error) { return l.closed(ctx, 0, b.Tokens) }
		return c
	}
	results, err := b.contest(o.ctx, "first", b.fewRounds(),
		fresh("go-oidc, new tokens", b.verify()+respond, userOf),
		fresh("member, new tokens", b.login(askNobody)+respond, memberOf))
	if err != nil {
		return err
	}
	b.compared(keyFirst, results[1], results[0], fmt.Sprintf("tokens of %d bytes", len(people[0].token)))
	return nil
}

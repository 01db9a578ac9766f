package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

// redisCase compares the way to a member in Redis with the least that a handler could
// do there. Memory is so small, and members are so many and come in turn, that almost
// none is met there.
func (b *bench) redisCase(o *owner) error {
	people, err := b.people(func() []person { return b.crowd.different(b.RedisUser) })
	if err != nil {
		return err
	}
	tenants := tenantNames(b.Tenants)
	server := servers.Redis(o)
	if err := b.cores.serve(o.ctx, server.PID()); err != nil {
		return err
	}
	shared := fmt.Sprintf("store redis://%s/0 {\n\t\t\tnamespace bench\n\t\t\ttimeout 1s\n\t\t}", server.Addr)
	cold := b.startSite(o, b.login(memoryOf("1MiB"), shared, askNobody, lastLong)+respond)
	if err := b.fill(o, "redis", cold, people, tenants); err != nil {
		return err
	}
	members := len(people) * len(tenants)
	prefix, middle, err := memberKeys(o.ctx, server.Addr, members)
	if err != nil {
		return err
	}
	inTurns := func() *visits {
		return &visits{
			people: people, tenants: tenants, pick: inTurn(len(people), len(tenants)), identity: memberOf, userHeader: true,
		}
	}
	get := b.startSite(o, fmt.Sprintf("\n\tbench_get %s %s %s", server.Addr, prefix, middle)+respond)
	least, err := b.steady(o, "one GET", get, inTurns())
	if err != nil {
		return err
	}
	ours, err := b.steady(o, "member from Redis", cold, inTurns())
	if err != nil {
		return err
	}
	calls := cold.metric(resolverCalls)
	hits, inMemory := cold.metric(lookups, `level="redis"`, `result="hit"`), cold.metric(lookups, `level="memory"`, `result="hit"`)
	results, err := b.contest(o.ctx, "redis", b.Rounds, least, ours)
	if err != nil {
		return err
	}
	if after := cold.metric(resolverCalls); after != calls {
		return fmt.Errorf("the resolver was asked %g times", after-calls)
	}
	hits = cold.metric(lookups, `level="redis"`, `result="hit"`) - hits
	inMemory = cold.metric(lookups, `level="memory"`, `result="hit"`) - inMemory
	b.compared(keyRedis, results[1], results[0], fmt.Sprintf("%.1f %% of the look-ups met memory after all", 100*inMemory/(hits+inMemory)))
	return b.profileOf(o, "redis", cold, ours)
}

// memberKeys returns what stands in the keys of members before the tenant, and between
// tenant and user, once there are that many.
func memberKeys(ctx context.Context, addr string, members int) (prefix, middle string, err error) {
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer func() { err = errors.Join(err, client.Close()) }()
	size, err := client.DBSize(ctx).Result()
	if err != nil {
		return "", "", err
	}
	if int(size) < members*99/100 {
		return "", "", fmt.Errorf("redis holds %d keys for %d members", size, members)
	}
	for {
		key, err := client.RandomKey(ctx).Result()
		if err != nil {
			return "", "", err
		}
		// prefix:version:tenant:kind:namespace:issuer:user
		parts := strings.SplitN(key, ":", 7)
		if len(parts) == 7 {
			return strings.Join(parts[:2], ":") + ":", ":" + strings.Join(parts[3:6], ":") + ":", nil
		}
	}
}

package keycloakcacheauth

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/token"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

var (
	propertyOps  = flag.Int("operations", 0, "how many operations TestNobodyIsEverSomebodyElse makes; default: 200,000, or 20,000 with the race detector or -short")
	propertySeed = flag.Uint64("seed", 1, "of TestNobodyIsEverSomebodyElse")
)

const (
	propertyTenants = 50
	propertyUsers   = 200
	propertyIssuers = 2
)

// person is one user in one tenant, under one issuer.
type person struct{ tenant, user, issuer int }

func (p person) tenantName() string { return fmt.Sprint("tenant-", p.tenant) }
func (p person) issuerURL() string  { return fmt.Sprint("https://sso.example.com/realms/r", p.issuer) }

func (p person) memberID() string {
	return fmt.Sprintf("%d/%d/%d", p.tenant, p.user, p.issuer)
}

// kcID has what keys, globs and collations stumble over.
func (p person) kcID() string {
	return []string{"user-%d", "USER-%d", "user-%d ", "user:%d", "{user}%d", "*%d"}[p.user%6] + fmt.Sprint(":", p.user)
}

func somebody(random *rand.Rand) person {
	return person{random.IntN(propertyTenants), random.IntN(propertyUsers), random.IntN(propertyIssuers)}
}

// Whatever the resolver answers, whatever stands in Redis and whatever is
// flushed meanwhile: who gets in is the token's user in the request's tenant.
func TestNobodyIsEverSomebodyElse(t *testing.T) {
	operations := *propertyOps
	if operations == 0 {
		operations = 200_000
		if raceDetector || testing.Short() {
			operations = 20_000
		}
	}
	t.Run("CI-027 T-17", func(t *testing.T) {
		t.Logf("%d operations, seed %d", operations, *propertySeed)
		server := servers.Redis(t)
		s := newSite(t)
		h, _ := load(t, s.config(func(h *Handler) {
			h.Stores = []*Store{{URL: "redis://" + server.Addr, Timeout: caddy.Duration(time.Second)}}
			h.TTL, h.NegativeTTL = caddy.Duration(200*time.Millisecond), caddy.Duration(20*time.Millisecond)
			h.StaleIfError, h.RefreshAhead = caddy.Duration(300*time.Millisecond), caddy.Duration(50*time.Millisecond)
		}))
		h.members.logger = zap.NewNop()
		s.source.respond(treacherousSource)
		client := redis.NewClient(&redis.Options{Addr: server.Addr})
		t.Cleanup(func() { _ = client.Close() })

		var admitted, refused atomic.Int64
		var workers sync.WaitGroup
		const parallel = 4
		for worker := range uint64(parallel) {
			workers.Go(func() {
				random := rand.New(rand.NewPCG(*propertySeed, worker))
				for range operations / parallel {
					if disturb(t, h, client, random) {
						continue
					}
					who := somebody(random)
					got, why := h.members.find(t.Context(), &token.Token{Issuer: who.issuerURL(), Subject: who.kcID()}, who.tenantName(), nil)
					if why != "" {
						refused.Add(1)
						continue
					}
					admitted.Add(1)
					if m := got.member; m.KCID != who.kcID() || m.Tenant != who.tenantName() || !m.Active || m.ID != who.memberID() ||
						m.Issuer != "" && m.Issuer != who.issuerURL() {
						t.Errorf("%+v was let in as %+v, from %s", who, m, got.source)
						return
					}
				}
			})
		}
		workers.Wait()
		t.Logf("%d admitted, %d refused", admitted.Load(), refused.Load())
		if admitted.Load() < int64(operations)/4 || refused.Load() < int64(operations)/100 {
			t.Error("too few were admitted, or refused, to prove anything")
		}
	})
}

// treacherousSource mostly answers right, and sometimes as a broken query, a
// folding collation or a database in trouble would.
func treacherousSource(_ context.Context, q member.Query) (*member.Member, error) {
	m := &member.Member{Tenant: q.Tenant, KCID: q.KCID, Issuer: q.Issuer, Active: true, ID: memberIDOf(q)}
	switch rand.IntN(40) {
	case 0:
		m.KCID = strings.ToUpper(m.KCID) + " "
	case 1:
		m.Tenant = "tenant-0"
		if q.Tenant == m.Tenant {
			m.Tenant = "tenant-1"
		}
	case 2:
		m.Issuer += "x"
	case 3:
		m.Active = false
	case 4:
		return nil, member.ErrUnknown
	case 5:
		return nil, errors.New("the database is in trouble")
	case 6:
		other := somebody(rand.New(rand.NewPCG(rand.Uint64(), 1)))
		m.KCID, m.ID = "nobody-"+other.kcID(), other.memberID()
	}
	return m, nil
}

func memberIDOf(q member.Query) string {
	var tenant, issuer int
	_, _ = fmt.Sscanf(q.Tenant, "tenant-%d", &tenant)
	_, _ = fmt.Sscanf(q.Issuer, "https://sso.example.com/realms/r%d", &issuer)
	return fmt.Sprintf("%d/%s/%d", tenant, q.KCID[strings.LastIndexByte(q.KCID, ':')+1:], issuer)
}

// disturb now and then flushes, or does to Redis what nobody should.
func disturb(t *testing.T, h *Handler, client *redis.Client, random *rand.Rand) bool {
	t.Helper()
	cached := h.members.stores.common
	keyOf := func(who person) string {
		return cached.keys.Member(who.tenantName(), who.issuerURL(), who.kcID())
	}
	who, other := somebody(random), somebody(random)
	var err error
	switch random.IntN(2000) {
	case 0:
		_, err = cached.Flush(t.Context(), store.Scope{Tenant: who.tenantName()}, nil)
	case 1:
		_, err = cached.Flush(t.Context(), store.Scope{Tenant: who.tenantName(), KCID: who.kcID()}, nil)
	case 2:
		_, err = cached.Flush(t.Context(), store.Scope{Tenant: who.tenantName(), MemberID: who.memberID()}, nil)
	case 3, 4, 5: // another's value under one's key
		var value string
		if value, err = client.Get(t.Context(), keyOf(other)).Result(); err == nil {
			err = client.Set(t.Context(), keyOf(who), value, time.Minute).Err()
		}
		if errors.Is(err, redis.Nil) {
			err = nil
		}
	case 6:
		err = client.Set(t.Context(), keyOf(who), `{"v":3,"tenant":"`+who.tenantName()+`"`, time.Minute).Err()
	case 7:
		err = client.Del(t.Context(), keyOf(who)).Err()
		if err == nil {
			err = client.LPush(t.Context(), keyOf(who), "x").Err()
		}
	default:
		return false
	}
	if err != nil {
		t.Error(err)
	}
	return true
}

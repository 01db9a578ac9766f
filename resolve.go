package keycloakcacheauth

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// resolve asks the resolvers in their order, the next only when the one before
// certainly does not know the user. It returns the one who gave the answer;
// where none knows the user, one whose answers are not cached, if there is any.
// Without patience it waits for no place at the resolvers.
func (f *finder) resolve(ctx context.Context, q question, patient bool) (*member.Member, member.Resolver, outcome) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	leave, err := f.gate.enter(ctx, q.want.Tenant, patient)
	if err != nil {
		f.metrics.resolved(resolverBusy, 0)
		return nil, nil, outcomeResolverBusy
	}
	defer leave()

	nobodys := true // the tenant, as all of them say
	for i, resolver := range f.resolvers {
		started := f.now()
		m, err := resolver.Resolve(ctx, q.query)
		took := f.now().Sub(started)
		switch {
		case err == nil && m != nil:
			f.metrics.resolved(resolverFound, took)
			f.answers(i)
			return m, resolver, ""
		case errors.Is(err, member.ErrUnknown):
			f.metrics.resolved(resolverUnknown, took)
			f.answers(i)
			nobodys = nobodys && errors.Is(err, member.ErrUnknownTenant)
		case err == nil:
			return nil, resolver, f.fails(i, errors.New("resolver returned neither a member nor an error"), took)
		default:
			return nil, resolver, f.fails(i, err, took)
		}
	}
	unknown := outcomeNotAMember
	if nobodys {
		unknown = outcomeTenantUnknown
	}
	for _, resolver := range f.resolvers {
		if uncached(resolver) {
			return nil, resolver, unknown
		}
	}
	return nil, nil, unknown
}

// answers notes that a resolver could be asked.
func (f *finder) answers(resolver int) {
	if f.down[resolver].Load() && f.down[resolver].CompareAndSwap(true, false) {
		f.logger.Info("resolver answers again", zap.Int("resolver", resolver))
	}
}

// fails tells how a failed call refuses the request. An ambiguous
// answer is one member's trouble, not the resolver's, and is logged as such.
func (f *finder) fails(resolver int, err error, took time.Duration) outcome {
	switch {
	case errors.Is(err, member.ErrAmbiguous):
		f.metrics.resolved(resolverError, took)
		f.logger.Error("resolver found more than one member; make (tenant, kc_id) unique", zap.Error(err))
		return outcomeResolverAmbiguous
	case errors.Is(err, context.DeadlineExceeded):
		f.metrics.resolved(resolverTimeout, took)
		f.fell(resolver, err)
		return outcomeResolverTimeout
	default:
		f.metrics.resolved(resolverError, took)
		f.fell(resolver, err)
		return outcomeResolverError
	}
}

func (f *finder) fell(resolver int, err error) {
	if f.down[resolver].CompareAndSwap(false, true) {
		f.logger.Error("resolver cannot answer; members in no cache get 503 until it does",
			zap.Int("resolver", resolver), zap.Error(err))
	}
}

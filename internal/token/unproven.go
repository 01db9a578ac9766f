package token

import (
	"context"
	"errors"
)

// maxUnproven bounds the opaque tokens asked about at the same time, so that there is
// always room for signed ones.
const maxUnproven = 8

var (
	errUnprovenBudget = errors.New("too many opaque tokens that nobody has issued were asked about lately")
	errUnprovenAtOnce = errors.New("too many opaque tokens are being asked about")
)

type unprovenKey struct{}

// WithUnproven marks a question about a token of which nothing is proven: an opaque
// one, which anybody can make up. A lightweight token's signature is proven before it
// is asked about.
func WithUnproven(ctx context.Context) context.Context {
	return context.WithValue(ctx, unprovenKey{}, true)
}

// Unproven reports whether a question was marked so. What comes of it must not have
// consequences for questions that are not.
func Unproven(ctx context.Context) bool {
	marked, _ := ctx.Value(unprovenKey{}).(bool)
	return marked
}

// admitUnproven takes one question about an opaque token out of the budget for them,
// or says why it must not be asked. in.mu is held.
func (in *Introspection) admitUnproven() error {
	switch {
	case in.unproven >= maxUnproven:
		return tooManyUnproven(errUnprovenAtOnce)
	case !in.budget.take(in.cfg.Now()):
		return tooManyUnproven(errUnprovenBudget)
	}
	in.unproven++
	return nil
}

// settleUnproven notes what came of it: good tokens cost nothing, so that those who
// have one wait for nobody but those who have none. in.mu is held.
func (in *Introspection) settleUnproven(err error) {
	in.unproven--
	if err == nil {
		in.budget.giveBack()
	}
}

func tooManyUnproven(err error) error {
	return &Error{
		Reason: ReasonIntrospection,
		Hint:   "the issuer is not asked about the token, since it was asked about too many that it does not know",
		Err:    err,
	}
}

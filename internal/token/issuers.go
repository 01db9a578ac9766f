package token

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Issuer is what [Issuers] choose from: a [*Verifier], for the tokens of one issuer,
// or a [*RealmsVerifier], for those of a template's realms.
type Issuer interface {
	// known returns what iss has to be, for hints.
	known() string
	// base holds the settings all its tokens are verified with.
	base() *Verifier
	// tenantOf returns the tenant of an issuer of a template, if it is one.
	tenantOf(issuer string) (tenant string, ok bool)
	// open returns the verifier for tokens of that issuer, for use until done is
	// called, with what became of it. Its error is a refusal.
	open(issuer, tenant string) (opened, error)
}

// opened is a verifier in use.
type opened struct {
	Verifier
	ask  asking
	done func(err error) error // returns err, or the verdict it comes down to
}

func (v *Verifier) known() string { return v.cfg.Issuer }

func (v *Verifier) base() *Verifier { return v }

func (v *Verifier) tenantOf(issuer string) (string, bool) { return "", issuer == v.cfg.Issuer }

func (v *Verifier) open(string, string) (opened, error) {
	return opened{*v, v.asking(), func(err error) error { return err }}, nil
}

// RealmsVerifier verifies the access tokens of the realms of a template, for the
// tenants that are allowed. It is safe for concurrent use.
type RealmsVerifier struct {
	common  *Verifier
	realms  *Realms
	allowed func(tenant string) bool
}

// NewForRealms returns a verifier for the tokens of realms whose tenant is allowed.
// cfg is what their verifiers have in common: without Issuer and Keys.
func NewForRealms(cfg Config, realms *Realms, allowed func(tenant string) bool) (*RealmsVerifier, error) {
	switch {
	case cfg.Issuer != "" || cfg.Keys != nil:
		return nil, errors.New("issuer, keys: are those of the realms")
	case realms == nil:
		return nil, errors.New("realms: missing")
	case cfg.Introspection != nil:
		return nil, errors.New("introspection: each realm has clients of its own, so that realms of a template " +
			"cannot be asked about tokens; configure the issuers one by one")
	case allowed == nil:
		return nil, errors.New("allowed: missing")
	}
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	return &RealmsVerifier{newVerifier(cfg), realms, allowed}, nil
}

func (v *RealmsVerifier) known() string { return v.realms.issuer.String() }

func (v *RealmsVerifier) base() *Verifier { return v.common }

func (v *RealmsVerifier) tenantOf(issuer string) (string, bool) {
	tenant, ok := v.realms.issuer.Tenant(issuer)
	return tenant, ok && v.allowed(tenant)
}

func (v *RealmsVerifier) open(issuer, tenant string) (opened, error) {
	r, err := v.realms.acquire(tenant)
	switch {
	case errors.Is(err, ErrNoRealm):
		return opened{}, noSuchRealm(issuer)
	case err != nil:
		return opened{}, keysUnavailable(err)
	}
	one := opened{Verifier: *v.common, ask: v.realms.asking(r, v.common.cfg.Observer)}
	one.cfg.Issuer, one.cfg.Keys = issuer, r.keys
	one.done = func(err error) error {
		if v.realms.giveBack(r, err) {
			return noSuchRealm(issuer)
		}
		return err
	}
	return one, nil
}

func noSuchRealm(issuer string) error {
	return refuse(ReasonIssuer, "the token's issuer is "+quote(issuer)+
		", which fits the template, but Keycloak has no such realm")
}

// Issuers verify tokens of several issuers, each with the settings of its own.
type Issuers struct {
	all    []Issuer
	exact  map[string]int // of those that are one issuer
	widest limits
	seen   *Seen

	introspecting []int            // those of all that can be asked about tokens
	answers       []*Introspection // theirs, each once
}

// NewIssuers returns a verifier for tokens of all these issuers. One that is named is
// preferred to a template it fits, an earlier template to a later one. Tokens are
// remembered in seen, which may be shared with others, and may be nil.
func NewIssuers(seen *Seen, all ...Issuer) (*Issuers, error) {
	if len(all) == 0 {
		return nil, errors.New("issuers: none")
	}
	s := &Issuers{all: all, exact: make(map[string]int), seen: seen}
	for i, one := range all {
		if slices.ContainsFunc(all[:i], func(other Issuer) bool { return other.known() == one.known() }) {
			return nil, fmt.Errorf("issuers: %q is there twice", one.known())
		}
		if _, single := one.(*Verifier); single {
			s.exact[one.known()] = i
		}
		if in := one.base().cfg.Introspection; in != nil {
			s.introspecting = append(s.introspecting, i)
			if !slices.Contains(s.answers, in) {
				s.answers = append(s.answers, in)
			}
		}
		bounds := one.base().limits
		s.widest.maxSize = max(s.widest.maxSize, bounds.maxSize)
		s.widest.algorithms = append(s.widest.algorithms, bounds.algorithms...)
		s.widest.configured = append(s.widest.configured, bounds.configured...)
	}
	slices.Sort(s.widest.algorithms)
	s.widest.algorithms = slices.Compact(s.widest.algorithms)
	slices.Sort(s.widest.configured)
	s.widest.configured = slices.Compact(s.widest.configured)
	return s, nil
}

// Verified is a token that was accepted, and what accepted it.
type Verified struct {
	Token *Token

	// Index of its issuer, among those given to [NewIssuers].
	Index int

	// Tenant is what {tenant} stands for in the token's issuer; "" if that is no
	// realm of a template.
	Tenant string

	// Seen says that the token was remembered, so that its signature was not
	// verified again.
	Seen bool
}

// Verify returns what raw says, and whose it is, if it is a token to be accepted now.
// The error is an [*Error], unless ctx ended while keys were awaited: then it is
// ctx.Err().
func (s *Issuers) Verify(ctx context.Context, raw string) (Verified, error) {
	if err := s.widest.admitSize(len(raw)); err != nil {
		return Verified{}, err
	}
	id := s.seen.digest(raw)
	if verified, known, err := s.recall(ctx, s.seen, id, len(raw)); known {
		return verified, err
	}
	if !isBearer(raw) { // nothing of the kind is remembered
		return Verified{}, refuse(ReasonCharacters, "")
	}
	opaque := len(s.introspecting) > 0 && isOpaque(raw)
	if !opaque || len(s.introspecting) == 1 { // or nobody knows whose it is, not even if one does
		for _, in := range s.answers {
			if verified, known, err := s.recall(ctx, in.answers, in.answers.digest(raw), len(raw)); known {
				return verified, err
			}
		}
		if opaque {
			return s.opaque(ctx, raw)
		}
	}
	verified, err := s.first(ctx, raw)
	if err != nil {
		return Verified{}, err
	}
	if !verified.Token.Introspected() { // or it is remembered already, by whom it was asked for
		s.seen.put(id, verified.Token)
	}
	return verified, nil
}

// recall returns the verdict on a token that a memory holds. If it is not known, the
// memory does not hold it, or it has to prove itself again.
func (s *Issuers) recall(ctx context.Context, memory *Seen, id seenID, size int) (_ Verified, known bool, err error) {
	tok := memory.get(id)
	if tok == nil {
		return Verified{}, false, nil
	}
	verified, err := s.again(ctx, tok, size)
	switch {
	case err == nil:
	case errors.Is(err, errTooLight):
		return Verified{}, false, nil // and others, who take it as it is, still remember it
	case ReasonOf(err) == ReasonUnknownKey:
		// The key was withdrawn, or is only written otherwise than it was, or it is
		// another handler's for an issuer of the same name.
		memory.forget(id)
		return Verified{}, false, nil
	}
	return verified, true, err
}

// errTooLight says that the issuer has to be asked about a token that is remembered
// with no more than it says itself.
var errTooLight = errors.New("a lightweight token")

// again looks at a token that was verified before, here or by others with the same
// memory: at all that may have changed, or is different here.
func (s *Issuers) again(ctx context.Context, tok *Token, size int) (Verified, error) {
	index, tenant, err := s.choose(tok.Issuer, true)
	if err != nil {
		return Verified{}, err
	}
	settings := s.all[index].base()
	if err := settings.admitSize(size); err != nil {
		return Verified{}, err
	}
	if settings.asksAbout(tok) {
		return Verified{}, errTooLight
	}
	if single, ok := s.all[index].(*Verifier); ok {
		err = single.Check(ctx, tok)
	} else {
		err = checkOpened(ctx, s.all[index], tok, tenant)
	}
	if err != nil {
		return Verified{}, err
	}
	return Verified{Token: tok, Index: index, Tenant: tenant, Seen: true}, nil
}

// checkOpened is [Verifier.Check] for who has to be opened first.
//
//go:noinline // the stack of who has not need not have room for it
func checkOpened(ctx context.Context, issuer Issuer, tok *Token, tenant string) error {
	one, err := issuer.open(tok.Issuer, tenant)
	if err != nil {
		return err
	}
	return one.done(one.check(ctx, tok, one.ask))
}

// opaque asks the one issuer that can be asked about a token that is no JWT.
func (s *Issuers) opaque(ctx context.Context, raw string) (Verified, error) {
	index := s.introspecting[0]
	v := s.all[index].base()
	tok, err := v.opaque(ctx, raw)
	if err == nil {
		err = v.Check(ctx, tok)
	}
	if err != nil {
		return Verified{}, err
	}
	return Verified{Token: tok, Index: index}, nil
}

// first verifies a token that nobody has seen, or whose key is another by now.
func (s *Issuers) first(ctx context.Context, raw string) (Verified, error) {
	a, err := s.widest.parse(raw)
	if err != nil {
		return Verified{}, err
	}
	issuer, isText := a.payload.text("iss")
	index, tenant, err := s.choose(issuer, isText)
	if err != nil {
		return Verified{}, err
	}
	settings := s.all[index].base()
	if err := settings.admitSize(len(raw)); err != nil {
		return Verified{}, err
	}
	if err := settings.admitAlgorithm(a.algorithm); err != nil {
		return Verified{}, err
	}
	if err := settings.screen(a); err != nil { // before a realm is opened for nothing
		return Verified{}, err
	}
	one, err := s.all[index].open(issuer, tenant)
	if err != nil {
		return Verified{}, err
	}
	tok, err := one.prove(ctx, a, one.ask)
	if err == nil {
		err = one.check(ctx, tok, one.ask)
	}
	if err := one.done(err); err != nil {
		return Verified{}, err
	}
	return Verified{Token: tok, Index: index, Tenant: tenant}, nil
}

// choose returns which of the issuers a token of that one is for.
func (s *Issuers) choose(issuer string, isText bool) (index int, tenant string, err error) {
	if first, ok := s.all[0].(*Verifier); ok && isText && issuer == first.cfg.Issuer { // mostly there is no other
		return 0, "", nil
	}
	if index, ok := s.exact[issuer]; ok && isText {
		return index, "", nil
	}
	known := make([]string, 0, len(s.all))
	for i, one := range s.all {
		if tenant, ok := one.tenantOf(issuer); ok && isText {
			return i, tenant, nil
		}
		known = append(known, one.known())
	}
	return 0, "", refuse(ReasonIssuer, issuerHint(issuer, isText, known...))
}

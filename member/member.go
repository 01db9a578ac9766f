// Package member holds what the module and its resolvers share: the
// application's own record of a user in a tenant, the question that leads to
// it, and the interface of the modules that answer it.
//
// It imports neither Caddy nor the rest of the module, so a resolver can be
// written and tested against this package alone.
package member

import (
	"context"
	"errors"
	"fmt"
)

// Namespace is the Caddy module namespace of resolvers. A module
// `http.handlers.keycloak_cache_auth.resolvers.<name>` that implements
// [Resolver] can be used as `resolver <name>`.
const Namespace = "http.handlers.keycloak_cache_auth.resolvers"

// Resolver finds the member that a query asks for.
//
// An implementation must be safe for concurrent use, must honour the context's
// deadline, and must keep working while requests of a replaced configuration
// are still being served.
type Resolver interface {
	// Resolve returns the one record of the query's user in the query's tenant.
	//
	// It returns an error that wraps [ErrUnknown] if there certainly is no such
	// record; the next resolver is asked then. Any other error says that it
	// could not be found out, and leads to a 503, never to a 403.
	//
	// The record is compared with the query afterwards, so an implementation
	// returns what its source says and must not copy the query into it.
	Resolve(ctx context.Context, q Query) (*Member, error)

	// Identity returns a text that differs between any two resolvers whose
	// answers to the same query may differ: the kind of resolver, the place it
	// asks and the question it puts. A digest of it is part of the key under
	// which members are stored, so it must not hold a secret and must be the
	// same on every node that runs the same configuration.
	Identity() string
}

// Errors a [Resolver] returns. Compare with errors.Is.
var (
	// ErrUnknown says that the user certainly has no record in the tenant.
	ErrUnknown = errors.New("no such member")

	// ErrUnknownTenant says that nobody certainly has a record in the tenant,
	// for there is no such tenant. It is an ErrUnknown, and leads to the same
	// answer; operators see the difference. Most sources cannot tell.
	ErrUnknownTenant = fmt.Errorf("%w: no such tenant", ErrUnknown)

	// ErrAmbiguous says that the source has more than one record for the query.
	ErrAmbiguous = errors.New("more than one member")
)

// Query asks for one user of one issuer in one tenant.
type Query struct {
	// Tenant is the tenant the request is for, already checked for its syntax
	// and bound to the token where the configuration demands that.
	Tenant string

	// Issuer is the verified `iss` of the token.
	Issuer string

	// KCID is the verified `sub` of the token: the user's Keycloak id.
	KCID string

	// Claims holds what the token says at the paths that the resolver has
	// declared (see [ClaimReader]). A path at which the token holds neither a
	// text, number or boolean nor a list of those is absent. Nobody changes it.
	Claims map[string]Value
}

// Member is the application's own record of one user in one tenant. A Member
// is shared between requests once a resolver has returned it: nobody changes
// it any more.
type Member struct {
	// KCID is the user's Keycloak id as the record has it. It must equal the
	// token's `sub`.
	KCID string

	// Tenant is the tenant as the record has it. It must equal the request's.
	Tenant string

	// Issuer is the issuer the record belongs to, if the source knows it. It
	// must equal the token's `iss` then. Empty where the source has no such
	// notion.
	Issuer string

	// Active tells whether the user may use the tenant now.
	Active bool

	// ID is the application's own id of the member.
	ID string

	// Attributes holds everything else the application wants to know of the
	// member. The list under "roles" becomes the roles sent to the upstream.
	Attributes map[string]Value

	packed packed // instead of Attributes, in caches; see Packed
}

// IssuerTeller is implemented by a [Resolver] that can tell the users of
// different issuers apart. A configuration that accepts several issuers demands
// that, unless it binds each of them to tenants.
type IssuerTeller interface {
	// TellsIssuers tells whether the resolver uses the query's issuer to find a
	// member.
	TellsIssuers() bool
}

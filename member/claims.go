package member

// ClaimReader is implemented by a [Resolver] that reads claims of the token
// besides `sub` and `iss`. What it reads is part of the key under which its
// answers are cached, so that a token that says otherwise is another question.
type ClaimReader interface {
	// Claims returns the names or dotted paths of the claims it reads, such as
	// `email` or `realm_access.roles`. They are the same on each call once the
	// resolver is provisioned, and are what [Query.Claims] then holds.
	Claims() []string
}

// Uncached is implemented by a [Resolver] whose answers are never cached,
// because they cost nothing and follow from the token at hand.
type Uncached interface {
	// Uncached tells whether the resolver's answers are not to be cached.
	Uncached() bool
}

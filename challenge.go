package keycloakcacheauth

import "strings"

// challengeDetails is what an answer says beyond its status, most of it in
// challenges.
type challengeDetails struct {
	scopes   []string // that would be needed (RFC 6750 section 3)
	metadata string   // URL of the resource's metadata (RFC 9728 section 5.1)
	dpop     dpopDetails

	hideTenants bool // whether the answer may tell tenants from others
}

// dpopDetails is what challenges say of DPoP (RFC 9449 section 7.1).
type dpopDetails struct {
	algorithms string // that proofs may be signed with; "" if DPoP is not offered
	required   bool   // bearer tokens are not
	used       bool   // the credential was of this scheme
}

// challenges returns a challenge for each scheme that is accepted. The error
// code stands in that of the scheme that was used.
func (d challengeDetails) challenges(code string) []string {
	inDPoP := d.dpop.used || d.dpop.required || code == answerInvalidProof.code || code == answerNonceNeeded.code
	var all []string
	if !d.dpop.required {
		bearer := challenge{scheme: "Bearer"}
		if !inDPoP {
			d.describe(&bearer, code)
		} else {
			d.describe(&bearer, "")
		}
		all = append(all, bearer.String())
	}
	if d.dpop.algorithms != "" {
		dpop := challenge{scheme: "DPoP"}
		if inDPoP {
			d.describe(&dpop, code)
		} else {
			d.describe(&dpop, "")
		}
		dpop.add("algs", d.dpop.algorithms)
		all = append(all, dpop.String())
	}
	return all
}

func (d challengeDetails) describe(c *challenge, code string) {
	c.add("error", code)
	c.add("scope", strings.Join(d.scopes, " "))
	c.add("resource_metadata", d.metadata)
}

// challenge is one of WWW-Authenticate (RFC 9110 section 11.6.1).
type challenge struct {
	scheme     string
	parameters []string
}

// add gives the challenge a parameter, unless it is empty. No value has
// anything in it that would need to be escaped.
func (c *challenge) add(name, value string) {
	if value != "" {
		c.parameters = append(c.parameters, name+`="`+value+`"`)
	}
}

func (c challenge) String() string {
	if len(c.parameters) == 0 {
		return c.scheme
	}
	return c.scheme + " " + strings.Join(c.parameters, ", ")
}

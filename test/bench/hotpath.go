package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// hotPath is what a profile of the case respond says: where the time of a request goes.
type hotPath struct {
	Samples  int64     `json:"samples"`  // a hundred a second
	Requests int       `json:"requests"` // while they were taken
	Request  float64   `json:"us_per_request"`
	Module   float64   `json:"us_per_request_in_module"` // without what comes after it
	Steps    []hotStep `json:"steps"`
}

// hotStep is a part of the module's time.
type hotStep struct {
	Name      string   `json:"name"`
	Functions []string `json:"functions"`
	Share     float64  `json:"share"` // of the module's time
}

// walked are the functions that only call the steps, one after another. What they do
// themselves is a step like the others.
func walked() []string {
	return []string{
		"Handler.ServeHTTP", "Handler.decide", "Handler.passOn", "finder.find",
		"token.Issuers.Verify", "token.Issuers.recall",
	}
}

// stepNames tell what functions are there for. Those that are not here go by their own
// names: that functions are renamed makes the table less legible, not wrong.
func stepNames() map[string]string {
	const (
		read     = "read the token and the tenant from the request"
		strip    = "remove what the client must not send"
		digest   = "make the token's digest"
		seen     = "look the token up"
		verify   = "check its time, issuer, audience and key anew"
		logouts  = "check whether its session is logged out"
		policies = "check proofs, required claims, tenant binding"
		member   = "look the member up, and check whose he is"
		headers  = "make the identity's headers"
		vars     = "keep the identity for placeholders"
		count    = "metrics and log"
	)
	return map[string]string{
		"tokenSources.take": read, "tokenSource.take": read, "tenantRule.take": read, "tenantRule.fromToken": read,
		"ownedHeaders.strip": strip, "tokenSources.remove": strip, "trailerFilter.abandonOn": strip,
		"token.Seen.digest": digest, "token.Seen.get": seen, "token.Issuers.again": verify, "token.limits.admitSize": verify,
		"storeSet.knowsLogouts": logouts, "storeSet.loggedOut": logouts,
		"senderRule.check": policies, "token.Token.Meet": policies, "tenantBinding.allows": policies,
		"visits.last": member, "finder.question": member, "store.Store.Memory": member, "checkMember": member, "finder.foundIn": member,
		"Handler.identify": headers,
		"identityOf":       vars, "identity.subject": vars,
		"metrics.decided": count, "metrics.lookupInMemory": count, "Handler.logAdmitted": count,
	}
}

// Steps that are none, and what is too little to be shown.
const (
	callingThem  = "call all these"
	theRest      = "the rest"
	leastOfSteps = 0.01
)

// hotPathOf finds the steps in a profile that was taken during that many requests.
func hotPathOf(p *profile.Profile, requests int) *hotPath {
	h := &hotPath{Requests: requests}
	for _, sample := range p.Sample {
		h.Samples += sample.Value[0]
	}
	var all, module int64
	times, functions := make(map[string]int64), make(map[string][]string)
	for _, s := range stacksOf(p) {
		all += s.time
		inside := s.inModule()
		if inside == nil {
			continue
		}
		module += s.time
		name, function := stepOf(inside)
		times[name] += s.time
		if !slices.Contains(functions[name], function) {
			functions[name] = append(functions[name], function)
		}
	}
	const nanosPerMicro = 1000
	h.Request = float64(all) / nanosPerMicro / float64(requests)
	h.Module = float64(module) / nanosPerMicro / float64(requests)
	rest := hotStep{Name: theRest}
	for name, time := range times {
		step := hotStep{Name: name, Functions: functions[name], Share: float64(time) / float64(module)}
		slices.Sort(step.Functions)
		if step.Share < leastOfSteps {
			rest.Share += step.Share
			continue
		}
		h.Steps = append(h.Steps, step)
	}
	slices.SortFunc(h.Steps, func(a, b hotStep) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Name, b.Name))
	})
	if rest.Share > 0 {
		h.Steps = append(h.Steps, rest)
	}
	return h
}

// stepOf returns which step a stack within the module is in, and the function that
// does it.
func stepOf(inside []string) (name, function string) {
	at := 0
	for at+1 < len(inside) && slices.Contains(walked(), shortName(inside[at])) && kindOf(inside[at+1]) != ofRuntime {
		at++
	}
	function = shortName(inside[at])
	switch known, ok := stepNames()[function]; {
	case ok:
		return known, function
	case slices.Contains(walked(), function):
		return callingThem, function
	}
	return "`" + function + "`", function
}

// write writes the steps as a table.
func (h *hotPath) write(w io.Writer) {
	if h == nil {
		return
	}
	fmt.Fprintf(w, "Of %.1f µs of processor time for a request, %.1f µs (%.0f %%) are the module's, in %s samples over %s requests.\n\n",
		h.Request, h.Module, 100*h.Module/h.Request, thousands(float64(h.Samples)), thousands(float64(h.Requests)))
	rows := [][]string{{"Step", "Of the module's time", "µs", "Done by"}}
	for _, s := range h.Steps {
		by := ""
		if len(s.Functions) > 0 {
			by = "`" + strings.Join(s.Functions, "`, `") + "`"
		}
		rows = append(rows, []string{s.Name, fmt.Sprintf("%.0f %%", 100*s.Share), fmt.Sprintf("%.2f", s.Share*h.Module), by})
	}
	writeTable(w, rows)
}

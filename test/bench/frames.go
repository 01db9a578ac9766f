package main

import (
	"path"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// kind is whose a function is.
type kind string

const (
	ofModule  kind = "module"
	ofCaddy   kind = "caddy"
	ofHTTP    kind = "http"    // net/http and what it reads and writes with
	ofRuntime kind = "runtime" // memory, garbage collection, scheduling
	ofSystem  kind = "system"  // calls of the kernel
	ofOthers  kind = "others"
	ofAll     kind = "all" // of the whole server
)

// kinds are all of them, in the order of the legend, with what they are called there.
func kinds() []struct {
	kind kind
	name string
} {
	return []struct {
		kind kind
		name string
	}{
		{ofModule, "the module"},
		{ofCaddy, "Caddy"},
		{ofHTTP, "net/http"},
		{ofSystem, "system calls"},
		{ofRuntime, "Go's runtime"},
		{ofOthers, "other packages"},
	}
}

// modulePath is what the names of the module's functions begin with.
const modulePath = "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth"

// kindOf tells whose the function of that name is.
func kindOf(function string) kind {
	pkg := packageOf(function)
	within := func(paths ...string) bool {
		for _, p := range paths {
			if pkg == p || strings.HasPrefix(pkg, p+"/") {
				return true
			}
		}
		return false
	}
	switch {
	case within(modulePath):
		return ofModule
	case within("github.com/caddyserver"):
		return ofCaddy
	case within("syscall", "internal/runtime/syscall", "internal/poll"):
		return ofSystem
	case pkg == "", within("runtime", "internal/runtime", "internal/bytealg", "internal/abi"): // without package: assembly
		return ofRuntime
	case within("net", "bufio", "vendor/golang.org/x/net"):
		return ofHTTP
	}
	return ofOthers
}

// packageOf is the import path in a function's name, "" if there is none.
func packageOf(function string) string {
	directory, last := path.Split(function)
	pkg, _, found := strings.Cut(last, ".")
	if !found {
		return ""
	}
	return directory + pkg
}

// shortName is a function's name as people write it: token.Seen.digest. Functions of
// the module's root package, which all others are called by, go without its name.
func shortName(function string) string {
	pkg := packageOf(function)
	rest := strings.TrimPrefix(strings.TrimPrefix(function, pkg), ".")
	rest = strings.NewReplacer("(*", "", "(", "", ")", "").Replace(rest)
	switch base := path.Base(pkg); {
	case pkg == "" || pkg == modulePath:
		return rest
	case len(base) > 1 && base[0] == 'v' && strings.Trim(base[1:], "0123456789") == "":
		return path.Base(path.Dir(pkg)) + "." + rest
	default:
		return base + "." + rest
	}
}

// withoutTypes leaves out what a generic function or type was made for, which may hold
// the paths of other packages.
func withoutTypes(function string) string {
	var name strings.Builder
	depth := 0
	for _, r := range function {
		switch {
		case r == '[':
			depth++
		case r == ']':
			depth--
		case depth == 0:
			name.WriteRune(r)
		}
	}
	return name.String()
}

// stack is where the processor was, the outermost function first, and for how long.
type stack struct {
	functions []string
	time      int64 // nanoseconds
}

// stacksOf returns what a profile holds, in its order. Calls that the compiler has put
// in place are functions like the others.
func stacksOf(p *profile.Profile) []stack {
	at := processorTime(p)
	stacks := make([]stack, 0, len(p.Sample))
	for _, sample := range p.Sample {
		s := stack{time: sample.Value[at]}
		for _, location := range slices.Backward(sample.Location) {
			for _, line := range slices.Backward(location.Line) {
				if line.Function != nil {
					s.functions = append(s.functions, withoutTypes(line.Function.Name))
				}
			}
		}
		stacks = append(stacks, s)
	}
	return stacks
}

// The borders of the module in a stack.
const (
	moduleEntry = modulePath + ".(*Handler).ServeHTTP"
	nextHandler = "github.com/caddyserver/caddy/v2/modules/caddyhttp." // and then … .ServeHTTP
)

// inModule returns the part of a stack from the module's handler on, nil if there is
// none or if the next handler has been called already.
func (s stack) inModule() []string {
	for i, function := range s.functions {
		if function != moduleEntry {
			continue
		}
		for _, called := range s.functions[i+1:] {
			if strings.HasPrefix(called, nextHandler) && strings.HasSuffix(called, ".ServeHTTP") {
				return nil
			}
		}
		return s.functions[i:]
	}
	return nil
}

package main

import (
	"fmt"
	"math"
)

// bar is what a figure must come to.
type bar struct {
	key   string
	title string
	unit  unit
	least float64 // NaN: it is only reported
	aim   float64 // NaN: there is none beyond least
	most  bool    // smaller is better: least is the most it may be
}

// unit says how a figure is written.
type unit string

const (
	ratio      unit = "ratio"
	statements unit = "statements"
	objects    unit = "allocations"
	bytesUnit  unit = "bytes"
	kibibytes  unit = "KiB"
	millis     unit = "ms"
	megabytes  unit = "MB"
)

// format writes a value of the unit.
func (u unit) format(value float64) string {
	switch u {
	case ratio:
		return fmt.Sprintf("%.2f", value)
	case statements:
		return fmt.Sprintf("%.3g", value)
	case objects:
		return fmt.Sprintf("%.1f", value)
	case kibibytes, megabytes:
		return fmt.Sprintf("%.2f %s", value, u)
	default:
		return fmt.Sprintf("%.0f %s", value, u)
	}
}

// keys of the bars, which the cases fill in.
const (
	keyRespond    = "respond"
	keyProxy      = "proxy"
	keySpread     = "spread"
	keySize       = "size"
	keyLatency    = "latency"
	keyFirst      = "first_sight"
	keyRedis      = "redis"
	keyStatements = "sql"
	keyProfile    = "sql_profile"
	keyObjects    = "allocations"
	keyBytes      = "allocated"
	keyHeap       = "heap"
	keyStartDown  = "start_down"
	keyStartUp    = "start_up"
	keyBinary     = "binary"
)

// bars are what must be true, in the order of the table. They are about the numbers of
// a full run; their titles tell those of the run at hand.
func bars(s scale) []bar {
	none := math.NaN()
	many := func(n int) string { return thousands(float64(n)) }
	return []bar{
		{keyRespond, "member in memory, token seen: `respond` behind it ÷ bare `respond`", ratio, 0.86, 0.92, false},
		{keyProxy, "the same with `reverse_proxy` ÷ bare `reverse_proxy`", ratio, 0.95, 0.98, false},
		{keySpread, many(s.Users) + " users × " + many(s.Tenants) + " tenants at random ÷ one member", ratio, 0.95, none, false},
		{keySize, "memory that holds " + many(s.FewUsers*s.Many) + " members ÷ " + many(s.FewUsers), ratio, 0.92, none, false},
		{keyLatency, "p99 at half the bare throughput, open loop ÷ bare p99", ratio, none, 1.15, true},
		{keyFirst, many(s.Tokens) + " tokens at first sight ÷ plain go-oidc", ratio, 0.90, 1.0, false},
		{keyRedis, "member from Redis ÷ a handler that does one GET", ratio, 0.80, 0.90, false},
		{keyStatements, "SQL statements for a member and `ttl`, on a node", statements, 1, none, true},
		{keyProfile, "the same with `profile`", statements, 2, none, true},
		{keyObjects, "allocations on the hot path, beyond those with a handler that does nothing", objects, 10, none, true},
		{keyBytes, "bytes that they are", bytesUnit, 1536, none, true},
		{keyHeap, "heap for a cached member with 8 attributes", kibibytes, 1, none, true},
		{keyStartDown, "start to the first 503 with nothing reachable, over bare Caddy's first answer", millis, 100, none, true},
		{keyStartUp, "start to the first 200 with everything up, over bare Caddy's first answer", millis, 100, none, true},
		{keyBinary, "binary over plain Caddy's, both as xcaddy builds them", megabytes, 15, none, true},
	}
}

// verdict says whether a figure is good enough.
type verdict string

const (
	aimMet   verdict = "aim met"
	met      verdict = "met"
	missed   verdict = "MISSED"
	aimLost  verdict = "aim not met" // of what has no bar besides the aim
	notMade  verdict = "not measured"
	reported verdict = "reported"
)

// judge compares a figure with its bar, as exactly as it is shown.
func (b bar) judge(value float64) verdict {
	reaches := func(mark float64) bool {
		shown := value
		if b.unit == ratio {
			shown, mark = math.Round(value*100), math.Round(mark*100)
		}
		if b.most {
			return shown <= mark
		}
		return shown >= mark
	}
	switch {
	case math.IsNaN(value):
		return notMade
	case !math.IsNaN(b.aim) && reaches(b.aim):
		return aimMet
	case !math.IsNaN(b.least) && reaches(b.least):
		return met
	case !math.IsNaN(b.least):
		return missed
	case !math.IsNaN(b.aim):
		return aimLost
	}
	return reported
}

// demand writes what the bar asks for.
func (b bar) demand() string {
	sign := "≥ "
	if b.most {
		sign = "≤ "
	}
	text := ""
	if !math.IsNaN(b.least) {
		text = sign + b.unit.format(b.least)
	}
	if !math.IsNaN(b.aim) {
		if text != "" {
			text += ", "
		}
		text += "aim " + sign + b.unit.format(b.aim)
	}
	return text
}

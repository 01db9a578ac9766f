package main

import (
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

var update = flag.Bool("update", false, "write the golden files anew")

// smallProfile is one of a server that is at these places for these milliseconds. M, C
// and H stand for the paths of the module, of Caddy and of its http app.
func smallProfile(stacks map[string]int64) *profile.Profile {
	p := &profile.Profile{
		SampleType:    []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		DurationNanos: int64(time.Second),
	}
	replace := strings.NewReplacer("M.", modulePath+".", "M/", modulePath+"/", "H.", nextHandler, "C.", "github.com/caddyserver/caddy/v2.")
	for text, milliseconds := range stacks { // in any order
		sample := &profile.Sample{Value: []int64{milliseconds / 10, milliseconds * int64(time.Millisecond)}}
		for function := range strings.SplitSeq(text, " ") {
			lines := []profile.Line{}
			for inlined := range strings.SplitSeq(function, "+") { // the callee after its caller
				f := &profile.Function{ID: uint64(len(p.Function) + 1), Name: replace.Replace(inlined)}
				p.Function = append(p.Function, f)
				lines = slices.Insert(lines, 0, profile.Line{Function: f})
			}
			location := &profile.Location{ID: uint64(len(p.Location) + 1), Line: lines}
			p.Location = append(p.Location, location)
			sample.Location = slices.Insert(sample.Location, 0, location)
		}
		p.Sample = append(p.Sample, sample)
	}
	return p
}

func someStacks() map[string]int64 {
	const handler = "net/http.(*conn).serve net/http.serverHandler.ServeHTTP H.(*Server).ServeHTTP H.HandlerFunc.ServeHTTP M.(*Handler).ServeHTTP"
	const verify = " M.(*Handler).decide M/internal/token.(*Issuers).Verify"
	return map[string]int64{
		"net/http.(*conn).serve net/http.(*response).finishRequest net.(*conn).Write internal/poll.(*FD).Write syscall.Write internal/runtime/syscall/linux.Syscall6": 300,
		"net/http.(*conn).serve net/http.(*conn).readRequest net/textproto.readMIMEHeader":                                                                            85,
		"net/http.(*conn).serve net/http.(*conn).readRequest net/url.Parse":                                                                                           85, // as much: the name decides
		"runtime.gcBgMarkWorker runtime.systemstack runtime.gcDrain":                                                                                                  100,
		handler: 20,
		handler + verify + " M/internal/token.(*Seen).digest crypto/sha256.(*Digest).Write+crypto/sha256.block": 90,
		handler + verify + "+M/internal/token.(*Issuers).recall M/internal/token.(*Issuers).again time.Now":     60,
		handler + " M.(*Handler).decide M.(*finder).find runtime.duffcopy":                                      10,
		handler + " M.(*Handler).identify runtime.mapassign_faststr runtime.mallocgc":                           110,
		handler + " M.(*Handler).shiny":             8,
		handler + " M.(*Handler).neverHeardOf":      90,
		handler + " M.identityOf C.(*Replacer).Map": 2,
		handler + " M.(*Handler).passOn H.HandlerFunc.ServeHTTP H.StaticResponse.ServeHTTP C.(*Replacer).ReplaceAll": 140,
	}
}

func TestStepsOfTheHotPath(t *testing.T) {
	got := hotPathOf(smallProfile(someStacks()), 10_000)
	if got.Samples != 108 || got.Request != 110 || got.Module != 39 {
		t.Errorf("%d samples, %g µs, of these %g in the module", got.Samples, got.Request, got.Module)
	}
	want := []hotStep{
		{"make the identity's headers", []string{"Handler.identify"}, 110},
		{"`Handler.neverHeardOf`", []string{"Handler.neverHeardOf"}, 90}, // what nobody has a name for is shown by its own
		{"make the token's digest", []string{"token.Seen.digest"}, 90},
		{"check its time, issuer, audience and key anew", []string{"token.Issuers.again"}, 60},
		{callingThem, []string{"Handler.ServeHTTP", "finder.find"}, 30},
		{"`Handler.shiny`", []string{"Handler.shiny"}, 8},
		{theRest, nil, 2},
	}
	if len(got.Steps) != len(want) {
		t.Fatalf("the steps are %v", got.Steps)
	}
	for i, step := range got.Steps {
		if step.Name != want[i].Name || !slices.Equal(step.Functions, want[i].Functions) || math.Abs(step.Share*390-want[i].Share) > 1e-9 {
			t.Errorf("step %d is %v, want %v of 390", i, step, want[i])
		}
	}
}

func TestThePictureOfAProfileIsTheSameEachTime(t *testing.T) {
	golden := filepath.Join("testdata", "hotpath.svg")
	for range 8 { // the profile's samples are in another order each time
		path := filepath.Join(t.TempDir(), "hotpath.svg")
		r := &report{Date: "2026-01-01", Machine: "a <machine>", Go: "go1", Caddy: "v2", profile: smallProfile(someStacks())}
		r.Hot = hotPathOf(r.profile, 10_000)
		if err := r.writeFlame(path); err != nil {
			t.Fatal(err)
		}
		got := wellFormed(t, path)
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Fatalf("it is not %s (-update writes that anew):\n%s", golden, got)
		}
	}
}

// A report that was read from a file has the table of steps, and no profile.
func TestAReportWithoutAProfileHasNoPicture(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hotpath.svg")
	if err := sampleReport().writeFlame(path); err == nil {
		t.Error("it was drawn")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("there is a file")
	}
}

func TestShortNames(t *testing.T) {
	for function, want := range map[string]string{
		modulePath + ".(*Handler).ServeHTTP":              "Handler.ServeHTTP",
		modulePath + "/internal/token.(*Seen).digest":     "token.Seen.digest",
		"github.com/caddyserver/caddy/v2.(*Replacer).Get": "caddy.Replacer.Get",
		"github.com/maypok86/otter/v2.(*Cache[go.shape.[32]uint8,*" + modulePath + "/internal/token.Token]).GetIfPresent": "otter.Cache.GetIfPresent",
		"memeqbody":        "memeqbody",
		"runtime.mallocgc": "runtime.mallocgc",
	} {
		if got := shortName(withoutTypes(function)); got != want {
			t.Errorf("%s: %s, want %s", function, got, want)
		}
	}
}

func TestWhoseAFunctionIs(t *testing.T) {
	for function, want := range map[string]kind{
		modulePath + "/internal/store.(*Store).Memory":                ofModule,
		"github.com/caddyserver/caddy/v2.(*Replacer).Get":             ofCaddy,
		"net/textproto.readMIMEHeader":                                ofHTTP,
		"vendor/golang.org/x/net/http/httpguts.ValidHeaderFieldValue": ofHTTP,
		"internal/runtime/syscall/linux.Syscall6":                     ofSystem,
		"internal/poll.(*FD).Write":                                   ofSystem,
		"internal/runtime/maps.(*Iter).Next":                          ofRuntime,
		"memeqbody":                                                   ofRuntime,
		"crypto/sha256.(*Digest).Write":                               ofOthers,
		"github.com/maypok86/otter/v2.(*Cache[...]).GetIfPresent":     ofOthers,
	} {
		if got := kindOf(function); got != want {
			t.Errorf("%s: %s, want %s", function, got, want)
		}
	}
}

package keycloakcacheauth

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

var update = flag.Bool("update", false, "rewrite the second half of each file in testdata/adapt")

// A file in testdata/adapt has a Caddyfile, a divider, and what adapting it
// gives: JSON if the file's name begins with ok_, an error if with error_.
const adaptDivider = "----------\n"

// secretInTests is what no error may show. It stands for a password in some of
// the Caddyfiles.
const secretInTests = "s3cret"

// adaptCase is one of those files.
type adaptCase struct {
	name, file  string
	input, want string
}

// adaptCases returns the files whose names begin with prefix.
func adaptCases(tb testing.TB, prefix string) []adaptCase {
	tb.Helper()
	files, err := filepath.Glob("testdata/adapt/" + prefix + "*.caddyfiletest")
	if err != nil || len(files) == 0 {
		tb.Fatalf("no files found (%v)", err) // an empty folder must not pass
	}
	var cases []adaptCase
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		input, want, found := strings.Cut(string(data), adaptDivider)
		if !found {
			tb.Fatalf("%s has no divider", file)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".caddyfiletest")
		cases = append(cases, adaptCase{name: name, file: file, input: input, want: strings.TrimSpace(want)})
	}
	return cases
}

// check compares got with what the file says, or changes the file.
func (c adaptCase) check(t *testing.T, got string) {
	t.Helper()
	switch {
	case *update:
		if err := os.WriteFile(c.file, []byte(c.input+adaptDivider+got+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	case got != c.want:
		t.Errorf("got\n%s\nwant\n%s", got, c.want)
	}
}

func adapt(tb testing.TB, input string) ([]byte, error) {
	tb.Helper()
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), nil)
	for _, warning := range warnings {
		if err == nil {
			tb.Errorf("warning: %v", warning)
		}
	}
	return adapted, err
}

func TestAdapt(t *testing.T) {
	for _, c := range adaptCases(t, "ok_") {
		t.Run(c.name, func(t *testing.T) {
			adapted, err := adapt(t, c.input)
			if err != nil {
				t.Fatal(err)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, adapted, "", "\t"); err != nil {
				t.Fatal(err)
			}
			c.check(t, pretty.String())
		})
	}
}

// The line at fault is marked in the Caddyfile with a comment that names the
// option; where one is missing, that is the line of the block. Each error must
// name both, and no secret.
func TestAdaptErrors(t *testing.T) {
	const marker = "# error: "
	for _, c := range adaptCases(t, "error_") {
		t.Run(c.name, func(t *testing.T) {
			_, err := adapt(t, c.input)
			if err == nil {
				t.Fatal("adapted without an error")
			}
			before, after, marked := strings.Cut(c.input, marker)
			if !marked {
				t.Fatalf("no line is marked with %q", marker)
			}
			option, _, _ := strings.Cut(after, "\n")
			line := ", at Caddyfile:" + strconv.Itoa(strings.Count(before, "\n")+1)
			if text := err.Error() + "\n"; !strings.Contains(text, line+"\n") && !strings.Contains(text, line+" ") {
				t.Errorf("%q does not end with %q", err, line)
			}
			// Caddy itself puts the directive's name before each error
			text := strings.TrimPrefix(err.Error(), "parsing caddyfile tokens for 'keycloak_cache_auth': ")
			if !strings.Contains(text, option) {
				t.Errorf("%q does not name %s", text, option)
			}
			if strings.Contains(text, secretInTests) {
				t.Errorf("%q shows a secret", text)
			}
			c.check(t, err.Error())
		})
	}
}

// Whatever the parser accepts has passed the checks that JSON passes, and
// survives the trip through JSON that every configuration takes.
func FuzzUnmarshalCaddyfile(f *testing.F) {
	for _, c := range append(adaptCases(f, "ok_"), adaptCases(f, "error_")...) {
		if at := strings.Index(c.input, directive); at >= 0 {
			f.Add(strings.TrimSuffix(strings.TrimSpace(c.input[at:]), "}")) // without the site's brace
		}
	}
	f.Fuzz(func(t *testing.T, input string) {
		// not NewTestDispenser, which ends the process when it cannot read
		tokens, err := caddyfile.Tokenize([]byte(input), "fuzz")
		if err != nil {
			return
		}
		var h, back Handler
		if h.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)) != nil {
			return
		}
		if err := h.check(); err != nil {
			t.Errorf("what was parsed would not load: %v", err)
		}
		raw, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		if err := caddy.StrictUnmarshalJSON(raw, &back); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		again, err := json.Marshal(back)
		if err != nil || string(again) != string(raw) {
			t.Errorf("%s became %s (%v)", raw, again, err)
		}
		if !h.StripOnly && (len(h.Issuers) != 1 || len(h.Audiences) == 0 != h.AudienceOff || len(h.ResolversRaw) == 0) {
			t.Errorf("%s protects nothing", raw)
		}
	})
}

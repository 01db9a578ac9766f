// Command bench measures what the module costs, against Caddy without it and against
// handlers that do one of its tasks:
//
//	go run ./test/bench
//
// It builds Caddy with the module, starts what it needs on loopback (Redis and
// PostgreSQL must be installed), lets the servers take turns under load, and prints a
// table of the figures and the bars they are to meet. The whole takes a quarter of an
// hour, on a machine that has nothing else to do. -quick tries everything in
// seconds, and shows nothing but that it works.
//
// -json, -svg and -docs write the report, a chart of it, and the document about it;
// with -from they are made of an earlier report's JSON, and nothing is measured. -flame
// draws the profile of the hot path.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // something could not be measured, or written
	exitUsage  = 2
	exitMissed = 3 // with -strict: a bar was missed
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are the command's flags.
type options struct {
	scale    scale
	unpinned bool
	strict   bool
	profiles string
	only     *regexp.Regexp
	from     string
	files    outputs
}

// outputs are the files to write, those that are named.
type outputs struct{ json, svg, flame, docs string }

func parseOptions(args []string, stderr io.Writer) (options, error) {
	opts := options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	full := fullScale()
	var quick bool
	var only string
	rounds := flags.Int("rounds", full.Rounds, fmt.Sprintf("how often the servers take turns; at most %d times where a turn is dear", dearRounds))
	duration := flags.Duration("duration", full.Duration, "how long each one is measured at a time")
	warmup := flags.Duration("warmup", full.Warmup, "how long each one is warmed up before the first time")
	leadIn := flags.Duration("lead-in", full.LeadIn, "how long each one runs unmeasured before each other time")
	connections := flags.Int("connections", full.Connections, "keep-alive connections")
	users := flags.Int("users", full.Users, "users of the case spread")
	tenants := flags.Int("tenants", full.Tenants, "tenants of each of them")
	tokens := flags.Int("tokens", full.Tokens, "tokens of the case first")
	flags.BoolVar(&quick, "quick", false, "try everything in seconds, with few of everything")
	unpinned := flags.Bool("unpinned", false, "let servers and load run on any core")
	flags.BoolVar(&opts.strict, "strict", false, "exit with 3 if a bar is missed")
	flags.StringVar(&only, "only", "", "`regexp` of the cases to measure: "+strings.Join(caseNames(), ", "))
	flags.StringVar(&opts.from, "from", "", "`file` with the JSON of an earlier run, to write the rest from")
	flags.StringVar(&opts.profiles, "profile", "", "`directory` for processor profiles of the module's server: "+
		"respond.prof, spread.prof and redis.prof, of the cases of these names")
	profileFor := flags.Duration("profile-duration", full.Profile, fmt.Sprintf("how long a profile is, in whole seconds; that of respond is %d times as long", hotPathLonger))
	flags.StringVar(&opts.files.json, "json", "", "`file` for the report")
	flags.StringVar(&opts.files.svg, "svg", "", "`file` for the chart")
	flags.StringVar(&opts.files.flame, "flame", "", "`file` for a picture of the profile of the hot path")
	flags.StringVar(&opts.files.docs, "docs", "", "`file` for the document")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	opts.scale, opts.unpinned = full, quick
	if quick {
		opts.scale = quickScale()
	}
	flags.Visit(func(f *flag.Flag) { // what was said holds with -quick too
		switch f.Name {
		case "rounds":
			opts.scale.Rounds = *rounds
		case "duration":
			opts.scale.Duration = *duration
		case "warmup":
			opts.scale.Warmup = *warmup
		case "lead-in":
			opts.scale.LeadIn = *leadIn
		case "profile-duration":
			opts.scale.Profile = *profileFor
		case "connections":
			opts.scale.Connections = *connections
		case "unpinned":
			opts.unpinned = *unpinned
		case "users":
			opts.scale.Users = *users
		case "tenants":
			opts.scale.Tenants = *tenants
		case "tokens":
			opts.scale.Tokens = *tokens
		}
	})
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case opts.scale.Profile < time.Second || opts.scale.Profile%time.Second != 0:
		err = errors.New("-profile-duration must be whole seconds")
	case opts.from != "" && opts.files.flame != "":
		err = errors.New("-flame needs a profile, and a report has none: leave -from out")
	case min(opts.scale.Rounds, opts.scale.Connections, opts.scale.Users, opts.scale.Tenants, opts.scale.Tokens) < 1,
		opts.scale.Duration <= 0, opts.scale.Warmup <= 0, opts.scale.LeadIn < 0:
		err = errors.New("-rounds, -duration, -connections, -users, -tenants, -tokens and -warmup must be positive, and -lead-in not negative")
	}
	if err == nil && only != "" {
		opts.only, err = regexp.Compile("^(" + only + ")$")
	}
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
	}
	return opts, err
}

func caseNames() []string {
	var names []string
	for _, c := range cases() {
		names = append(names, c.name)
	}
	return names
}

// run is the command.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	opts, err := parseOptions(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage // it was said why
	}
	r, err := obtain(ctx, opts, stderr)
	if r != nil {
		for _, write := range []func(io.Writer){r.writeTables, r.Hot.write, r.writeScaling, r.writeBursts} {
			write(stdout)
			fmt.Fprintln(stdout)
		}
		err = errors.Join(err, opts.files.write(r))
	}
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return exitFailed
	case opts.strict && len(r.lost()) > 0:
		fmt.Fprintf(stderr, "bench: missed: %s\n", strings.Join(r.lost(), ", "))
		return exitMissed
	}
	return exitOK
}

// obtain measures, or reads what was measured.
func obtain(ctx context.Context, opts options, log io.Writer) (*report, error) {
	if opts.from != "" {
		return readReport(opts.from)
	}
	return measure(ctx, opts, log)
}

// measure is a whole run. What it has written to disk is gone when it returns.
func measure(ctx context.Context, opts options, log io.Writer) (_ *report, err error) {
	dir, err := os.MkdirTemp("", "kca-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	begun := time.Now()
	where := newCores(ctx, !opts.unpinned)
	b := &bench{
		scale: opts.scale, cores: where, only: opts.only, log: log, dir: dir,
		profiles: opts.profiles,
		report:   newReport(opts.scale, where),
	}
	b.say("%s", where)
	err = b.run(ctx)
	b.report.Took = time.Since(begun).Round(time.Second).String()
	return b.report, err
}

// write writes the files that are named.
func (o outputs) write(r *report) error {
	var errs []error
	if o.json != "" {
		errs = append(errs, r.writeJSON(o.json))
	}
	if o.svg != "" {
		errs = append(errs, r.writeChart(o.svg))
	}
	if o.flame != "" {
		errs = append(errs, r.writeFlame(o.flame))
	}
	if o.docs != "" {
		errs = append(errs, r.writeDocument(o.docs))
	}
	return errors.Join(errs...)
}

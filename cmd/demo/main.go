// Command demo shows Caddy with keycloak_cache_auth at work, on a machine that has
// only Go:
//
//	go run ./cmd/demo
//
// It starts Caddy in its own process, a stand-in for Keycloak, an SQLite database
// with the members of two tenants, and an application that answers with what it
// received, and prints curl lines to try. Everything listens on loopback, and is gone
// after Ctrl-C. With -keycloak, -redis and -postgres the same runs on the real ones.
// With -check it sends the requests itself and exits with 0 if each was answered as
// the printed lines say, else with 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // it did not start, or -check found a wrong answer
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are the command's flags.
type options struct {
	listen        string // empty: defaultListen, or a free port if that is taken
	ttl           time.Duration
	keycloak      string // URL
	keycloakAdmin string // user:password
	redis         string // URL
	postgres      string // DSN
	check         bool
	verbose       bool
}

// run is the command. It returns when ctx ends, or once -check is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	opts, err := parseOptions(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage // flag has said why
	}
	if err := runDemo(ctx, opts, stdout); err != nil {
		fmt.Fprintf(stderr, "demo: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// runDemo starts the demo, shows or checks it, and ends it.
func runDemo(ctx context.Context, opts options, stdout io.Writer) (err error) {
	demo, err := start(ctx, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, demo.close()) }()
	if opts.check {
		return demo.check(ctx, stdout)
	}
	demo.print(stdout)
	<-ctx.Done()
	fmt.Fprintln(stdout, "\nThe demo has ended.")
	return nil
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var opts options
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&opts.listen, "listen", "",
		"`address` of the site; default "+defaultListen+", or a free port if that is taken")
	flags.DurationVar(&opts.ttl, "ttl", 10*time.Second, "how old a cached member may be")
	flags.StringVar(&opts.keycloak, "keycloak", "",
		"base `URL` of a real Keycloak, such as http://localhost:8080;\nthe realm "+realmName+" is made there and stays, with users whose\npassword is their name: take one that is for trials")
	flags.StringVar(&opts.keycloakAdmin, "keycloak-admin", "admin:admin", "`user:password` of the administrator of that Keycloak")
	flags.StringVar(&opts.redis, "redis", "", "`URL` of a Redis, such as redis://localhost:6379/0")
	flags.StringVar(&opts.postgres, "postgres", "",
		"`DSN` of a PostgreSQL database; the table "+membersTable+" is made\nthere, or emptied, and stays")
	flags.BoolVar(&opts.check, "check", false, "send the requests, compare the answers and exit")
	flags.BoolVar(&opts.verbose, "v", false, "log at DEBUG; by default only what goes wrong is logged")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case opts.ttl <= 0:
		err = errors.New("-ttl must be positive, such as 10s")
	}
	if err != nil {
		fmt.Fprintf(stderr, "demo: %v\n", err)
	}
	return opts, err
}

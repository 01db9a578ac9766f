package httpresolver

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/resolvers/internal/options"
)

// maxClaims bounds the claims of one line.
const maxClaims = 32

// UnmarshalCaddyfile sets up the resolver from Caddyfile tokens. Syntax:
//
//	resolver http {
//	    url                <url>
//	    method             GET | POST
//	    send_claims        <claim...>
//	    header             <name> <value>
//	    bearer             <token>
//	    hmac               <secret> [<header>]
//	    on_unknown         <url>
//	    timeout            <duration>
//	    trust_pool         <module> [...]
//	    client_certificate <certificate_file> <key_file>
//	    insecure_http
//	}
//
// `header` may be repeated.
func (r *Resolver) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	given, err := options.Block(d, options.Lines{
		"url":        func() error { return options.Argument(d, &r.URL) },
		"method":     func() error { return options.Argument(d, &r.Method) },
		"bearer":     func() error { return options.Argument(d, &r.Bearer) },
		"on_unknown": func() error { return options.Argument(d, &r.OnUnknown) },
		"timeout":    func() error { return options.Duration(d, &r.Timeout) },
		"send_claims": func() (err error) {
			r.SendClaims, err = options.Arguments(d, "<claim...>", 1, maxClaims)
			return err
		},
		"hmac": func() error {
			args, err := options.Arguments(d, "<secret> [<header>]", 1, 2)
			if err != nil {
				return err
			}
			r.HMACSecret = args[0]
			if len(args) == 2 {
				r.HMACHeader = args[1]
			}
			return nil
		},
		"header": func() error { return r.unmarshalHeader(d) },
		"trust_pool": func() (err error) {
			r.TrustPoolRaw, err = options.TrustPool(d)
			return err
		},
		"client_certificate": func() error {
			files, err := options.Arguments(d, "<certificate_file> <key_file>", 2, 2)
			if err != nil {
				return err
			}
			r.ClientCertificateFile, r.ClientKeyFile = files[0], files[1]
			return nil
		},
		"insecure_http": func() error { return options.Flag(d, &r.InsecureHTTP) },
	}, "header")
	if err != nil {
		return err
	}
	if !given["url"] {
		return d.Err("resolver http has no url; add the line: url https://…")
	}
	return nil
}

func (r *Resolver) unmarshalHeader(d *caddyfile.Dispenser) error {
	args, err := options.Arguments(d, "<name> <value>", 2, 2)
	if err != nil {
		return err
	}
	if _, given := r.Headers[args[0]]; given {
		return d.Err("a header is given twice; leave one of them out")
	}
	if r.Headers == nil {
		r.Headers = make(map[string]string)
	}
	r.Headers[args[0]] = args[1]
	return nil
}

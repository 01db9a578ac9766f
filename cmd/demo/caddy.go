package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"text/template"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/headers" // what the Caddyfile needs
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	_ "github.com/caddyserver/caddy/v2/modules/logging"
	_ "github.com/caddyserver/caddy/v2/modules/metrics"

	_ "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth"
)

// redisEnv is the environment variable through which Caddy gets the URL of Redis.
const redisEnv = "KCA_DEMO_REDIS"

// memberHeader is the response header that says where the member was found, and how old
// it was.
const memberHeader = "X-Demo-Member"

// caddyfileTemplate has the shape of Caddyfile.example. The global options keep the
// demo out of the files and ports of a Caddy that runs on the same machine.
var caddyfileTemplate = template.Must(template.New("Caddyfile").Funcs(template.FuncMap{
	// what holds no backquote needs no escapes between two of them
	"quote": func(text string) string { return "`" + text + "`" },
}).Parse(`{
	admin {{.Admin}}
	metrics
	persist_config off
	auto_https off
	storage file_system {{quote .Storage}}
	storage_clean_interval off
	log default {
		level {{if .Verbose}}DEBUG{{else}}ERROR{{end}}
		format console
		{{- if not .Verbose}}
		exclude http.handlers.keycloak_cache_auth
		{{- end}}
	}
	{{- if not .Verbose}}
	log keycloak_cache_auth {
		level WARN
		format console
		include http.handlers.keycloak_cache_auth
	}
	{{- end}}
}

http://:{{.Port}} {
	{{- with .Host}}
	bind {{.}}
	{{- end}}

	# routes that need no login
	@public path /public/*
	handle @public {
		keycloak_cache_auth {
			strip_only
		}
		reverse_proxy {{.Upstream}}
	}

	handle {
		keycloak_cache_auth {
			issuer {{.Issuer}}{{if or .Backchannel .InsecureHTTP}} {
				{{- with .Backchannel}}
				backchannel_url {{.}}
				{{- end}}
				{{- if .InsecureHTTP}}
				insecure_http
				{{- end}}
			}{{end}}
			audience {{.Audience}}
			ttl {{.TTL}}
			{{- if .Redis}}
			store {{.Redis}} {
				key_prefix kca-demo
				namespace {{.Namespace}}
			}
			{{- end}}
			resolver sql {
				driver {{.Driver}}
				dsn {{quote .DSN}}
				query "{{.Query}}"
			}
		}
		reverse_proxy {{.Upstream}} {
			# for the demo: where the member was found
			header_down {{.MemberHeader}} "{http.keycloak_cache_auth.cache}, {http.keycloak_cache_auth.age}s old"
		}
	}

	handle_errors {
		header Content-Type text/plain
		# for the demo: clients are not told the reason as a rule
		respond <<TEXT
			{err.status_code} {err.status_text}: {http.keycloak_cache_auth.reason}

			TEXT
	}
}
`))

// site is what the Caddyfile is made from.
type site struct {
	Admin, Host, Port string
	Upstream          string
	Storage           string
	Verbose           bool

	Issuer, Backchannel string
	InsecureHTTP        bool
	Audience            string
	TTL                 time.Duration
	Redis, Namespace    string // empty without Redis
	Driver, DSN, Query  string
}

// MemberHeader is [memberHeader], for the template.
func (*site) MemberHeader() string { return memberHeader }

// setRealm fills in the issuer's lines.
func (s *site) setRealm(r *realm) {
	s.Issuer, s.Audience = r.issuer, audience
	if r.base != r.issuer {
		s.Backchannel = r.base
	}
	s.InsecureHTTP = isPlainRemote(r.issuer) || isPlainRemote(r.base)
}

// isPlainRemote tells whether keys would come over plain HTTP from another machine,
// which the handler refuses unless it is told to.
func isPlainRemote(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Hostname() == "localhost" {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err != nil || !ip.IsLoopback()
}

// runningCaddy is the Caddy of this process: there can be only one.
type runningCaddy struct {
	config []byte // JSON
}

// startCaddy writes dir/Caddyfile and loads it.
func startCaddy(s site, dir string) (*runningCaddy, error) {
	text, err := s.caddyfile()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "Caddyfile"), text, 0o600); err != nil {
		return nil, err
	}
	adapter := caddyfile.Adapter{ServerType: httpcaddyfile.ServerType{}}
	config, _, err := adapter.Adapt(text, map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return nil, fmt.Errorf("adapting the Caddyfile: %w", err)
	}
	if err := caddy.Load(config, true); err != nil {
		return nil, fmt.Errorf("starting Caddy: %w", err)
	}
	return &runningCaddy{config: config}, nil
}

func (s *site) caddyfile() ([]byte, error) {
	var b bytes.Buffer
	if err := caddyfileTemplate.Execute(&b, s); err != nil {
		return nil, fmt.Errorf("writing the Caddyfile: %w", err)
	}
	return caddyfile.Format(b.Bytes()), nil
}

// restart ends Caddy and starts it again, as a new process would: what was in its
// memory is gone.
func (c *runningCaddy) restart() error {
	if err := caddy.Stop(); err != nil {
		return err
	}
	return caddy.Load(c.config, true)
}

// close ends Caddy, its admin endpoint included, which [caddy.Stop] leaves running.
func (c *runningCaddy) close() error {
	err := caddy.Load([]byte(`{"admin":{"disabled":true,"config":{"persist":false}},"logging":{"logs":{"default":{"level":"ERROR"}}}}`), true)
	if err != nil {
		return fmt.Errorf("stopping Caddy: %w", err)
	}
	return caddy.Stop()
}

// Command caddy is Caddy with the module, and with what the module is measured
// against: handlers that do one of its tasks by themselves, and a resolver that
// costs nothing. It is built and run by test/bench.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth"
)

func main() {
	caddycmd.Main()
}

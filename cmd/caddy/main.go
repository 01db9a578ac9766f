// Command caddy is Caddy with the module, for its development. Users build
// theirs with xcaddy.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth"
)

func main() {
	caddycmd.Main()
}

// A module of its own: what its tests need must not reach those who build the module.
module github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/test/oracle

go 1.26.0

require (
	github.com/coreos/go-oidc/v3 v3.21.0
	github.com/keycloak-cache-auth/caddy-keycloak-cache-auth v0.0.0
	github.com/lestrrat-go/jwx/v3 v3.3.0
)

require (
	github.com/go-jose/go-jose/v4 v4.1.4 // indirect
	github.com/go-json-experiment/json v0.0.0-20260820222146-c27c302e5fc3 // indirect
	github.com/lestrrat-go/blackmagic v1.0.4 // indirect
	github.com/lestrrat-go/dsig v1.4.0 // indirect
	github.com/lestrrat-go/httpcc v1.0.1 // indirect
	github.com/lestrrat-go/httprc/v3 v3.0.6 // indirect
	github.com/lestrrat-go/option/v2 v2.0.0 // indirect
	github.com/maypok86/otter/v2 v2.4.0 // indirect
	github.com/valyala/fastjson v1.6.10 // indirect
	golang.org/x/crypto v0.55.0 // indirect
	golang.org/x/oauth2 v0.36.0 // indirect
)

replace github.com/keycloak-cache-auth/caddy-keycloak-cache-auth => ../..

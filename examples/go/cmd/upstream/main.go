// Command upstream says who the user is.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	upstream "github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/examples/go"
)

func main() {
	v := &upstream.Verifier{
		Issuer:   os.Getenv("ASSERTION_ISSUER"),
		Audience: os.Getenv("ASSERTION_AUDIENCE"),
		JWKSURL:  os.Getenv("ASSERTION_JWKS_URL"),
	}
	whoami := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(upstream.UserOf(r.Context())) // the client may be gone
	})
	port := os.Getenv("PORT")
	if port == "" {
		port = "3000"
	}
	var network net.ListenConfig
	listener, err := network.Listen(context.Background(), "tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("http://%s\n", listener.Addr())
	server := http.Server{Handler: upstream.Handler(v, whoami), ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.Serve(listener))
}

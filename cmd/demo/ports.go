package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// defaultListen is the site's address if nobody wants another.
const defaultListen = "127.0.0.1:8080"

const anyPort = "127.0.0.1:0"

// listenAddress returns the site's address. Only an address that was asked for has to
// be free: instead of the default one any free port will do.
func listenAddress(ctx context.Context, wanted string) (string, error) {
	if wanted == "" {
		if free, err := freeAddress(ctx, defaultListen); err == nil {
			return free, nil
		}
		return freeAddress(ctx, anyPort)
	}
	address, err := freeAddress(ctx, wanted)
	if err != nil {
		return "", fmt.Errorf("cannot listen on %s, choose another address with -listen: %w", wanted, err)
	}
	return address, nil
}

// freeAddress returns the address if nothing listens there, with a free port in place
// of port 0. Caddy would not notice: it shares ports with other programs, so that two
// of them would get every other request.
func freeAddress(ctx context.Context, address string) (string, error) {
	listener, err := listen(ctx, address)
	if err != nil {
		return "", err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(host, port), listener.Close()
}

// serve answers on a free loopback port until the returned function is called.
func serve(ctx context.Context, handler http.Handler) (address string, stop func() error, err error) {
	listener, err := listen(ctx, anyPort)
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }() // returns when the server is closed
	return listener.Addr().String(), server.Close, nil
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}

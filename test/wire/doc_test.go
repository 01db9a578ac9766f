// Package wire_test proves on the wire that no client can send what comes
// behind the handler an identity header, in any spelling and at any place of a
// request, and that none can take away the ones the handler sets.
//
// A real Caddy runs between clients and upstreams that are written by hand,
// frame by frame and line by line: libraries would refuse to send what an
// attacker sends, and would tidy up what an upstream has to see.
//
// KCA_CADDY names the Caddy binary to test. Without it, cmd/caddy is built.
package wire_test

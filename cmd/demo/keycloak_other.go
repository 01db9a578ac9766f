//go:build !unix

package main

import (
	"context"
	"errors"
)

// setUpKeycloak is not to be had: the client for Keycloak's admin REST API is part of a
// package that handles processes as Unix does.
func setUpKeycloak(context.Context, string, string) (*realm, error) {
	return nil, errors.New("-keycloak works on Linux, macOS and other Unix systems only")
}

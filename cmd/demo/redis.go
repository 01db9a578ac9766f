package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// parseRedis returns nil if there is no address.
func parseRedis(address string) (*redis.Options, error) {
	if address == "" {
		return nil, nil
	}
	opts, err := redis.ParseURL(address)
	if err != nil {
		// what go-redis says may quote the password
		return nil, errors.New("-redis takes a URL such as redis://localhost:6379/0")
	}
	return opts, nil
}

// pingRedis tells early what Caddy would only log: it does without Redis.
func pingRedis(ctx context.Context, opts *redis.Options) error {
	opts.MaxRetries, opts.DialerRetries = -1, 1
	client := redis.NewClient(opts)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := errors.Join(client.Ping(ctx).Err(), client.Close()); err != nil {
		return fmt.Errorf("reaching Redis: %w", err)
	}
	return nil
}

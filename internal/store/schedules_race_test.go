//go:build race

package store

// defaultSchedules is less with the race detector, which makes them slow.
const defaultSchedules = 250

//go:build !race

package store

const defaultSchedules = 100000

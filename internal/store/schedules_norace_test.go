//go:build !race

package store

const defaultSchedules = 20000

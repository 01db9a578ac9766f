//go:build race

package keycloakcacheauth

// raceDetector tells that everything takes ten times as long.
const raceDetector = true

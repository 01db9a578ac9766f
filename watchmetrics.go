package keycloakcacheauth

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// watchMetrics is a collector of how the watches of one configuration's sources
// are doing. Two resolvers that watch the same count as one.
type watchMetrics struct {
	watches, failures, changes *prometheus.Desc

	mu      sync.Mutex
	tellers map[string]member.WatchTeller // by what is watched
}

func newWatchMetrics(prefix string) *watchMetrics {
	describe := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prefix+name, help, labels, nil)
	}
	return &watchMetrics{
		watches:  describe("watches", "Sources whose changes are watched, by whether they are heard of now.", "state"),
		failures: describe("watch_failures_total", "Connections for watching that could not be made, or were lost."),
		changes:  describe("watch_changes_total", "Changes that sources have told of, by whether they were understood.", "result"),
		tellers:  make(map[string]member.WatchTeller),
	}
}

// add has a source's watch counted, if it has one and can tell of it.
func (m *watchMetrics) add(source watcher) {
	teller, ok := source.(member.WatchTeller)
	identity := source.WatchIdentity()
	if !ok || identity == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tellers[identity] = teller
}

// Describe implements [prometheus.Collector].
func (m *watchMetrics) Describe(descs chan<- *prometheus.Desc) {
	descs <- m.watches
	descs <- m.failures
	descs <- m.changes
}

// Collect implements [prometheus.Collector].
func (m *watchMetrics) Collect(metrics chan<- prometheus.Metric) {
	var connected, lost int
	var sum member.WatchState
	m.mu.Lock()
	for _, teller := range m.tellers {
		state := teller.WatchState()
		if state.Connected {
			connected++
		} else {
			lost++
		}
		sum.Failures += state.Failures
		sum.Changes += state.Changes
		sum.Unreadable += state.Unreadable
	}
	m.mu.Unlock()
	gauge := func(desc *prometheus.Desc, value int, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), labels...)
	}
	counter := func(desc *prometheus.Desc, value uint64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value), labels...)
	}
	gauge(m.watches, connected, "connected")
	gauge(m.watches, lost, "lost")
	counter(m.failures, sum.Failures)
	counter(m.changes, sum.Changes-sum.Unreadable, "read")
	counter(m.changes, sum.Unreadable, "unreadable")
}

package keycloakcacheauth

import (
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// metrics are the module's collectors on Caddy's registry of one
// configuration. Every label has a small, closed set of values: nothing of a
// request becomes one.
type metrics struct {
	requests   *prometheus.CounterVec
	reports    *prometheus.CounterVec
	compares   *prometheus.CounterVec
	lookups    *prometheus.CounterVec
	mismatches *prometheus.CounterVec
	resolver   *prometheus.HistogramVec
	redis      *prometheus.HistogramVec
	redisFails *prometheus.CounterVec
	keyFetches *prometheus.HistogramVec
	introspect *prometheus.HistogramVec
	log        *prometheus.CounterVec
	assertions *prometheus.CounterVec
	stale      prometheus.Gauge
	watches    *watchMetrics

	// The counters that most requests need. To look them up at each would cost
	// more than to count, and a lock that all processors share.
	byOutcome                              map[outcome]prometheus.Counter
	memoryHits, memoryMisses, negativeHits prometheus.Counter
	reused                                 prometheus.Counter // assertions
}

// outcomesOnHotPath are counted without a look-up of their label.
var outcomesOnHotPath = []outcome{
	outcomeMember, outcomeAnonymous, outcomePreflight, outcomeStripped, outcomeMissingToken, outcomeNotAMember,
}

// Results of a resolver call.
const (
	resolverFound   = "found"
	resolverUnknown = "unknown"
	resolverTimeout = "timeout"
	resolverError   = "error"
	resolverBusy    = "busy" // not called: too many were under way, or waiting
)

// newMetrics registers the collectors on reg, which lives as long as one
// configuration. A second handler of the same configuration counts into the
// first one's collectors.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	const namespace, subsystem = "caddy", "keycloak_cache_auth"
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: name, Help: help,
		}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: name, Help: help,
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, labels)
	}
	m := &metrics{
		requests:   counter("requests_total", "Requests by how they were decided.", "outcome"),
		reports:    counter("reports_total", "Requests that would have been refused but for report_only, by how they were decided.", "outcome"),
		compares:   counter("comparisons_total", "Answers of upstreams to the question who the user is, by how they compare with ours.", "result"),
		lookups:    counter("lookups_total", "Look-ups of members by cache level and result.", "level", "result"),
		mismatches: counter("member_mismatches_total", "Members that did not fit the request, by where they came from.", "source", "reason"),
		resolver:   histogram("resolver_duration_seconds", "Time that resolver calls took, by result.", "result"),
		redis:      histogram("redis_duration_seconds", "Time that Redis commands took, failed ones too.", "operation"),
		redisFails: counter("redis_errors_total", "Redis commands that failed.", "operation"),
		keyFetches: histogram("key_fetch_duration_seconds", "Time that fetches of signing keys took, by result.", "result"),
		introspect: histogram("introspection_duration_seconds", "Time that introspections of tokens took, by result.", "result"),
		log:        counter("log_events_total", "What came out of the store's log of flushes, by event.", "event"),
		assertions: counter("assertions_total", "Assertions for upstreams, by result.", "result"),
	}
	m.stale = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Subsystem: subsystem, Name: "stale_members",
		Help: "Members that serve although they are too old, because the resolvers fail.",
	})
	m.watches = newWatchMetrics(namespace + "_" + subsystem + "_")
	err := errors.Join(
		register(reg, &m.requests), register(reg, &m.reports), register(reg, &m.compares), register(reg, &m.lookups), register(reg, &m.mismatches),
		register(reg, &m.resolver), register(reg, &m.redis), register(reg, &m.redisFails),
		register(reg, &m.keyFetches), register(reg, &m.introspect), register(reg, &m.log), register(reg, &m.stale),
		register(reg, &m.assertions), register(reg, &m.watches),
	)
	m.byOutcome = make(map[outcome]prometheus.Counter, len(outcomesOnHotPath))
	for _, o := range outcomesOnHotPath {
		m.byOutcome[o] = m.requests.WithLabelValues(string(o))
	}
	m.reused = m.assertions.WithLabelValues(assertionReused)
	m.memoryHits = m.lookups.WithLabelValues(store.Memory.String(), store.Hit.String())
	m.memoryMisses = m.lookups.WithLabelValues(store.Memory.String(), store.Miss.String())
	m.negativeHits = m.lookups.WithLabelValues(levelNegative, store.Hit.String())
	return m, err
}

// register adds *c to reg. If its equal is there already, *c becomes that one,
// so that both count together; a clash with somebody else's metric is an error.
func register[C prometheus.Collector](reg prometheus.Registerer, c *C) error {
	err := reg.Register(*c)
	if known := (prometheus.AlreadyRegisteredError{}); errors.As(err, &known) {
		if theirs, ok := known.ExistingCollector.(C); ok {
			*c = theirs
			return nil
		}
	}
	return err
}

// decided counts a request.
func (m *metrics) decided(o outcome) {
	if c, ok := m.byOutcome[o]; ok {
		c.Inc()
		return
	}
	m.requests.WithLabelValues(string(o)).Inc()
}

// reported counts a request that would have been refused.
func (m *metrics) reported(o outcome) {
	m.reports.WithLabelValues(string(o)).Inc()
}

// compared counts an answer of an upstream that was compared with ours.
func (m *metrics) compared(result string) {
	m.compares.WithLabelValues(result).Inc()
}

// mismatch counts a member that was not the one asked for.
func (m *metrics) mismatch(from source, why outcome) {
	m.mismatches.WithLabelValues(string(from), string(why)).Inc()
}

// lookupInMemory counts a look-up in the cache of this process.
func (m *metrics) lookupInMemory(result store.Result) {
	switch result {
	case store.Hit:
		m.memoryHits.Inc()
	case store.Miss:
		m.memoryMisses.Inc()
	default:
		m.lookup(store.Memory.String(), result.String())
	}
}

// lookup counts a look-up in one level of the cache.
func (m *metrics) lookup(level, result string) {
	m.lookups.WithLabelValues(level, result).Inc()
}

// resolved records a resolver call.
func (m *metrics) resolved(result string, took time.Duration) {
	m.resolver.WithLabelValues(result).Observe(took.Seconds())
}

// redisCommand records a Redis command.
func (m *metrics) redisCommand(operation string, took time.Duration, err error) {
	m.redis.WithLabelValues(operation).Observe(took.Seconds())
	if err != nil {
		m.redisFails.WithLabelValues(operation).Inc()
	}
}

// keysFetched records a fetch of signing keys.
func (m *metrics) keysFetched(took time.Duration, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.keyFetches.WithLabelValues(result).Observe(took.Seconds())
}

// Results of an introspection.
const (
	introspectionActive   = "active"
	introspectionInactive = "inactive"
	introspectionError    = "error"
)

// introspected records a question to the introspection endpoint.
func (m *metrics) introspected(result string, took time.Duration) {
	m.introspect.WithLabelValues(result).Observe(took.Seconds())
}

// Results of an assertion.
const (
	assertionSigned = "signed"
	assertionReused = "reused"
	assertionFailed = "failed"
)

// asserted counts an assertion.
func (m *metrics) asserted(reused bool, err error) {
	switch {
	case err != nil:
		m.assertions.WithLabelValues(assertionFailed).Inc()
	case reused:
		m.reused.Inc()
	default:
		m.assertions.WithLabelValues(assertionSigned).Inc()
	}
}

// logNews counts what a node learnt from the store's log.
func (m *metrics) logNews(news store.LogNews) {
	for _, event := range []struct {
		name  string
		count int
	}{
		{"flush", news.Flushes},
		{"logout", news.Logouts},
		{"generation", news.Generations},
		{"malformed", news.Malformed},
		{"repeated", news.Repeated},
		{"collapsed", news.Collapsed},
		{"evicted", news.Evicted},
	} {
		if event.count > 0 {
			m.log.WithLabelValues(event.name).Add(float64(event.count))
		}
	}
}

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

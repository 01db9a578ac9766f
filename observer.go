package keycloakcacheauth

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
)

// observer returns what carries the store's observations here.
func (f *finder) observer(want store.Want) store.Observer {
	return storeObserver{finder: f, want: want}
}

// storeObserver carries what the shared store sees to the configuration that
// asked: its metrics and its log.
type storeObserver struct {
	finder *finder
	want   store.Want
}

// Lookup implements [store.Observer].
func (o storeObserver) Lookup(level store.Level, result store.Result) {
	o.finder.metrics.lookup(level.String(), result.String())
	if result == store.Mismatch {
		o.finder.reportWrong("cached member does not fit the request; it is dropped and resolved again",
			sourceOfLevel(level), outcomeWrongEntry, o.want)
	}
}

// RedisOp implements [store.Observer].
func (o storeObserver) RedisOp(op store.Op, took time.Duration, err error) {
	o.finder.metrics.redisCommand(op.String(), took, err)
}

// LogState implements [store.Observer]: one line per change of state.
func (o storeObserver) LogState(state store.LogState, err error) {
	level, message := zapcore.InfoLevel, "the log of flushes is followed"
	switch state {
	case store.LogBlind:
		level, message = zapcore.WarnLevel, "the log of flushes cannot be read; members are resolved anew more often until it can"
	case store.LogStarting:
		level, message = zapcore.DebugLevel, "the log of flushes has not been read yet"
	case store.LogFollowed:
	}
	if c := o.finder.logger.Check(level, message); c != nil {
		c.Write(zap.String("state", state.String()), zap.Error(err))
	}
}

// LogNews implements [store.Observer].
func (o storeObserver) LogNews(news store.LogNews) {
	o.finder.metrics.logNews(news)
	if news.Malformed > 0 {
		o.finder.logger.Warn("the log of flushes holds what cannot be read; to be safe, every member was flushed",
			zap.Int("entries", news.Malformed), zap.String("id", news.MalformedAt))
	}
}

// RedisState implements [store.Observer]: one line per change of state.
func (o storeObserver) RedisState(state store.State, err error) {
	var level zapcore.Level
	var message string
	switch state {
	case store.Up:
		level, message = zapcore.InfoLevel, "redis is up"
	case store.ReadOnly:
		level, message = zapcore.WarnLevel, "redis takes no writes; members found by this node are not shared"
	case store.Down:
		level, message = zapcore.WarnLevel, "redis is unavailable; members come from memory and the resolvers"
	case store.Partial:
		level, message = zapcore.WarnLevel, "some servers of the redis cluster are unavailable; their members come from memory and the resolvers"
	}
	if c := o.finder.logger.Check(level, message); c != nil {
		c.Write(zap.String("state", state.String()), zap.Error(err))
	}
}

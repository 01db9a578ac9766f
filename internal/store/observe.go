package store

import "time"

// Level is one of the places an entry can come from.
type Level uint8

// The levels.
const (
	None Level = iota // no level had a good entry
	Memory
	Redis
)

// String returns the level's name as metrics and placeholders have it.
func (l Level) String() string {
	switch l {
	case Memory:
		return "memory"
	case Redis:
		return "redis"
	default:
		return "none"
	}
}

// Result says how looking into one level went. Everything but [Hit] and [Stale]
// means that the level had nothing that may be used.
type Result uint8

// The results.
const (
	Miss     Result = iota // there is no entry
	Hit                    // the entry is whom we asked for, and fresh
	Expired                // the entry is too old for its writer or for this reader
	Fenced                 // the entry was loaded or read before a flush or a deletion
	Mismatch               // the entry is about somebody else; it was deleted
	Invalid                // what is stored is not an entry; it was deleted
	Failed                 // the level could not answer
	Skipped                // the level was not asked, because its breaker is open
	Blind                  // flushes may have been missed: the flush log cannot be read, or was not yet
	Stale                  // the entry is expired or blind, and may be used if the resolver fails
)

// String returns the result's name as metrics have it.
func (r Result) String() string {
	switch r {
	case Hit:
		return "hit"
	case Expired:
		return "expired"
	case Fenced:
		return "fenced"
	case Mismatch:
		return "mismatch"
	case Invalid:
		return "invalid"
	case Failed:
		return "error"
	case Skipped:
		return "skipped"
	case Blind:
		return "blind"
	case Stale:
		return "stale"
	default:
		return "miss"
	}
}

// Op is an operation on Redis.
type Op uint8

// The operations.
const (
	OpGet Op = iota
	OpSet
	OpDelete
	OpAppend // to the flush log
	OpClaim
)

// String returns the operation's name as metrics have it.
func (o Op) String() string {
	switch o {
	case OpSet:
		return "set"
	case OpDelete:
		return "delete"
	case OpAppend:
		return "append"
	case OpClaim:
		return "claim"
	default:
		return "get"
	}
}

// State is the condition of the Redis level.
type State uint8

// The states.
const (
	// Up: reads and writes work, as far as is known.
	Up State = iota

	// ReadOnly: reads work but writes are refused or lost: a replica
	// (READONLY), a full one (OOM), a user without the right to write (NOPERM).
	ReadOnly

	// Down: reads fail, so Redis is left alone until it answers again.
	Down

	// Partial: some masters of a cluster are down or take no writes, and are left
	// alone; those that are up are used.
	Partial

	states = iota // how many there are
)

// String returns the state's name.
func (s State) String() string {
	switch s {
	case ReadOnly:
		return "read_only"
	case Down:
		return "down"
	case Partial:
		return "partial"
	default:
		return "up"
	}
}

// Observer is told what happens during one call. It belongs to the caller, who
// has the logger and the metrics. Its methods are called on the caller's
// goroutine and hold no lock of the store.
type Observer interface {
	// Lookup is called once for each [Lookup.Get] that came as far as Redis.
	// What memory said before that, [Store.Memory] has returned.
	Lookup(level Level, result Result)

	// RedisOp is called after each operation that Redis was asked for, with the
	// time it took. A missing key is no error. The error may name the address
	// of the server; it holds no secret and nothing of a member.
	RedisOp(op Op, took time.Duration, err error)

	// RedisState is called once per change of state, by whichever caller comes
	// next, so that one line is logged however many configurations share the
	// store. The error is what led to the state, nil for [Up].
	RedisState(state State, err error)

	// LogState is called once per change, like RedisState: whether this node
	// follows the flush log. The error is why it cannot, nil otherwise.
	LogState(state LogState, err error)

	// LogNews tells what was read in the flush log since it was last called for
	// anybody, and of logouts that were forgotten.
	LogNews(news LogNews)
}

// silent is the Observer of callers that have none.
type silent struct{}

func (silent) Lookup(Level, Result)             {}
func (silent) RedisOp(Op, time.Duration, error) {}
func (silent) RedisState(State, error)          {}
func (silent) LogState(LogState, error)         {}
func (silent) LogNews(LogNews)                  {}

package store

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// The format of what stands in Redis is JSON, version 3:
//
//	{
//	  "v": 3,
//	  "gen": "5f0c…",                               generation of the flush log, …
//	  "pos": "1767225599123-0",                     … position of its last event known when loading began, and …
//	  "event": "0f1e2d3c4b5a6978",                  … which event that was
//	  "tenant": "acme",                             whom was asked for
//	  "issuer": "https://sso.example.com/realms/a",
//	  "kc_id": "8d0c…",
//	  "claims": "Zx9…",                             digest of what else was asked with; left out for nothing
//	  "loaded_at": 1767225600000,                   Unix time in milliseconds
//	  "expires": 1767225660000,                     Unix time in milliseconds
//	  "keep": 1767229260000,                        Unix time in milliseconds
//	  "member": {                                   what the resolver answered
//	    "kc_id": "8d0c…",
//	    "tenant": "acme",
//	    "issuer": "https://…",                      left out if not known
//	    "active": true,
//	    "id": "4711",
//	    "attributes": {                             left out if there are none
//	      "roles": ["admin", "billing"],            a list of strings, or
//	      "team": "blue"                            one string
//	    }
//	  }
//	}
//
// Names are compared by case. Every name but those that may be left out is
// required, no other is allowed and none may come twice; null stands nowhere;
// nothing follows the object. No token and no claim is in it.
//
// From expires on the entry is stale: until keep, which is no earlier, it may be
// used while the resolver fails.
//
// gen is 1 to 64 letters, digits, hyphens or underscores; pos is a stream id as
// Redis writes it; event is an [eventID], in lower case. A writer that does not
// follow the flush log cannot write entries. A reader uses an entry only if gen
// is the generation in force, if it has itself read exactly this event at pos,
// since and including the one that began the generation, and if no event after
// that is a flush of the entry; see [Store.Flush] for the events.
const envelopeVersion = 3

// mark is where the flush log stood, as far as a writer had read it, when the
// loading of its entry began.
type mark struct {
	generation string
	sighting
}

const (
	// MaxEntrySize is the size in bytes of the largest value that is written to
	// Redis or read from it.
	MaxEntrySize = 64 << 10

	// MaxAttributes is how many attributes a member in Redis may have.
	MaxAttributes = 256

	// maxUnixMilli is the end of the year 9999. Times beyond that are rubbish,
	// and some of them cannot be computed with.
	maxUnixMilli = 253402300799999
)

// ErrInvalid says that a value is not an entry, or an entry not fit to be
// stored in Redis. What it says about a value read names no part of it.
var ErrInvalid = errors.New("not a valid entry")

// Where the zero value is refused, a name that is missing or null need not be told
// from it. Pointers do that for the others.
type envelope struct {
	Version  int64           `json:"v"`
	Gen      text            `json:"gen"`
	Pos      text            `json:"pos"`
	Event    text            `json:"event"`
	Tenant   text            `json:"tenant"`
	Issuer   text            `json:"issuer"`
	KCID     text            `json:"kc_id"`
	Claims   text            `json:"claims,omitempty"`
	LoadedAt int64           `json:"loaded_at"`
	Expires  int64           `json:"expires"`
	Keep     int64           `json:"keep"`
	Member   *memberEnvelope `json:"member"`
}

type memberEnvelope struct {
	KCID       text       `json:"kc_id"`
	Tenant     text       `json:"tenant"`
	Issuer     text       `json:"issuer,omitempty"`
	Active     *bool      `json:"active"`
	ID         *text      `json:"id"`
	Attributes attributes `json:"attributes,omitzero"`
}

// encode returns the entry as it is stored in Redis. Text that is not UTF-8
// cannot be, because it would come back as other text.
func encode(e *Entry, at mark) ([]byte, error) {
	m, id := &e.Member, text(e.Member.ID)
	wire := envelope{
		Version: envelopeVersion, Gen: text(at.generation), Pos: text(at.at.String()), Event: text(at.event.String()),
		Tenant: text(e.Tenant), Issuer: text(e.Issuer), KCID: text(e.KCID), Claims: text(e.Claims),
		LoadedAt: e.LoadedAt().UnixMilli(), Expires: e.Expires().UnixMilli(), Keep: e.LoadedAt().Add(e.keep).UnixMilli(),
		Member: &memberEnvelope{
			KCID: text(m.KCID), Tenant: text(m.Tenant), Issuer: text(m.Issuer), Active: &m.Active, ID: &id,
			Attributes: attributes{of: m},
		},
	}
	if err := wire.check(); err != nil {
		return nil, err
	}
	value, err := json.Marshal(&wire)
	if err != nil {
		return nil, fmt.Errorf("%w: it holds text that is not UTF-8, or more than %d attributes", ErrInvalid, MaxAttributes)
	}
	if len(value) > MaxEntrySize {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrInvalid, MaxEntrySize)
	}
	return value, nil
}

// decode reads what encode wrote, and refuses everything else. It makes no
// difference who wrote it: nothing in the value can make it panic, or use
// more than a small multiple of the value's size. The entry's texts are parts of one,
// save those that [sharedTexts.lean] leaves as they are.
func decode(value []byte) (*Entry, mark, error) {
	if len(value) > MaxEntrySize {
		return nil, mark{}, fmt.Errorf("%w: larger than %d bytes", ErrInvalid, MaxEntrySize)
	}
	wire := reading{source: string(value)}
	if err := json.Unmarshal(value, &wire); err != nil {
		return nil, mark{}, fmt.Errorf("%w: malformed", ErrInvalid) // the cause would quote the value
	}
	if err := wire.check(); err != nil {
		return nil, mark{}, err
	}
	pos, _ := parsePosition(string(wire.Pos))
	event, _ := parseEventID(string(wire.Event))
	return &Entry{
		Member: member.Member{
			KCID: string(wire.Member.KCID), Tenant: string(wire.Member.Tenant), Issuer: string(wire.Member.Issuer),
			Active: *wire.Member.Active, ID: string(*wire.Member.ID), Attributes: wire.Member.Attributes.read,
		},
		Tenant: string(wire.Tenant), Issuer: string(wire.Issuer), KCID: string(wire.KCID), Claims: strings.Clone(string(wire.Claims)),
		loaded: moment{wall: nanoseconds(wire.LoadedAt)},
		life:   time.Duration(nanoseconds(wire.Expires - wire.LoadedAt)),
		keep:   time.Duration(nanoseconds(wire.Keep - wire.LoadedAt)),
	}, mark{string(wire.Gen), sighting{pos, event}}, nil
}

// nanoseconds returns so many milliseconds, or as many nanoseconds as can be counted:
// 292 years.
func nanoseconds(milliseconds int64) int64 {
	return min(milliseconds, math.MaxInt64/int64(time.Millisecond)) * int64(time.Millisecond)
}

// check holds for what is written as well as for what is read.
func (e *envelope) check() error {
	m := e.Member
	switch {
	case e.Version != envelopeVersion:
		return fmt.Errorf("%w: version unknown", ErrInvalid)
	case e.LoadedAt == 0 || e.Expires == 0 || e.Keep == 0 ||
		m == nil || m.KCID == "" || m.Tenant == "" || m.Active == nil || m.ID == nil:
		return fmt.Errorf("%w: incomplete", ErrInvalid)
	case e.Tenant == "" || e.Issuer == "" || e.KCID == "":
		return fmt.Errorf("%w: about nobody", ErrInvalid)
	case !isGeneration(string(e.Gen)) || !isPosition(string(e.Pos)) || !isEventID(string(e.Event)):
		return fmt.Errorf("%w: no place in the flush log", ErrInvalid)
	case e.LoadedAt < 0 || e.Expires <= e.LoadedAt || e.Keep < e.Expires || e.Keep > maxUnixMilli:
		return fmt.Errorf("%w: its times make no sense", ErrInvalid)
	default:
		return nil
	}
}

// isGeneration tells whether text can be the name of a generation.
func isGeneration(text string) bool {
	for _, c := range []byte(text) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return text != "" && len(text) <= maxPartLength
}

func isPosition(text string) bool {
	_, ok := parsePosition(text)
	return ok
}

func isEventID(text string) bool {
	_, ok := parseEventID(text)
	return ok
}

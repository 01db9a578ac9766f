package keycloakcacheauth

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// CompareHeader has the upstream's own answer to the question who the user is
// compared with this module's.
type CompareHeader struct {
	// The response header in which the upstream says who the user is, e.g.
	// `X-Member-ID`. It should be in all of its answers, but for those to nobody.
	Name string `json:"name,omitempty"`

	// What it is compared with: a placeholder of this module. Default:
	// `{http.auth.user.member_id}`.
	Value string `json:"value,omitempty"`
}

const defaultCompared = "{" + userPrefix + "member_id}"

// loggedWhenCompared are the placeholders whose values may stand in the log:
// ids.
var loggedWhenCompared = []string{
	defaultCompared, "{" + userPrefix + "id}", "{" + userPrefix + "tenant}",
}

// Results of a comparison.
const (
	comparedEqual      = "equal"
	comparedDifferent  = "different"
	comparedOnlyOurs   = "only_ours"   // the upstream named nobody
	comparedOnlyTheirs = "only_theirs" // we would have named nobody
	comparedNeither    = "neither"
	comparedUnanswered = "unanswered" // by the upstream, which failed
)

// comparison is a CompareHeader made ready.
type comparison struct {
	name    string // canonical
	value   template
	shown   bool // whether values may be logged
	metrics *metrics
	logger  *zap.Logger
}

func (c *CompareHeader) check() error {
	if err := checkHeaderName(c.Name); err != nil {
		return fmt.Errorf("compare_header: %w", err)
	}
	value, err := c.parse()
	if err != nil {
		return fmt.Errorf("compare_header: %w", err)
	}
	if len(value) != 1 || value[0].own == nil {
		return errors.New("compare_header compares with one placeholder of this module, such as {http.auth.user.member_id}; give one")
	}
	return nil
}

func (c *CompareHeader) parse() (template, error) {
	if c.Value == "" {
		return parseTemplate(defaultCompared)
	}
	return parseTemplate(c.Value)
}

// newComparison makes the configured comparison ready, nil for none.
func (h *Handler) newComparison() (*comparison, error) {
	if h.CompareHeader == nil {
		return nil, nil
	}
	value, err := h.CompareHeader.parse()
	if err != nil {
		return nil, err
	}
	shown := h.CompareHeader.Value == ""
	for _, id := range loggedWhenCompared {
		shown = shown || h.CompareHeader.Value == id
	}
	return &comparison{textproto.CanonicalMIMEHeaderKey(h.CompareHeader.Name), value, shown, h.metrics, h.logger}, nil
}

// begin notes what we say about a request, and returns what compares it with
// the upstream's answer. What follows may change the identity.
func (c *comparison) begin(id *identity, who string) onAnswer {
	said := *id
	text, encoded := c.value.text(nil, &said), c.value.header(nil, &said)
	return func(status int, header http.Header) {
		theirs := strings.Join(header[c.name], ",")
		result := compared(theirs, text, encoded, status)
		c.metrics.compared(result)
		switch result {
		case comparedDifferent, comparedOnlyOurs, comparedOnlyTheirs:
			c.log(result, encoded, theirs, status, &said, who)
		}
	}
}

// compared tells how the upstream's answer relates to ours, as it is or encoded
// for a header.
func compared(theirs, ours, encoded string, status int) string {
	switch {
	case theirs == "" && (status == 0 || isFailure(status)):
		return comparedUnanswered
	case theirs == "" && ours == "":
		return comparedNeither
	case theirs == "":
		return comparedOnlyOurs
	case ours == "":
		return comparedOnlyTheirs
	case theirs == ours, theirs == encoded:
		return comparedEqual
	default:
		return comparedDifferent
	}
}

// log tells of a difference, with ids alone.
func (c *comparison) log(result, ours, theirs string, status int, said *identity, who string) {
	entry := c.logger.Check(zapcore.WarnLevel, "upstream and cache differ about who the user is")
	if entry == nil {
		return
	}
	fields := []zap.Field{
		zap.String("result", result), zap.String("reason", string(said.outcome)), zap.String("cache", string(said.source)),
		zap.Int("status", status), zap.String("tenant", said.requestedTenant), zap.String("kc_id", who),
	}
	if c.shown {
		fields = append(fields, zap.String("ours", presentable(ours)), zap.String("theirs", presentable(theirs)))
	}
	entry.Write(fields...)
}

// maxPresentable is the longest id that is logged, in bytes. Tokens are longer.
const maxPresentable = 128

// presentable keeps out of the log what can be no id.
func presentable(id string) string {
	if len(id) > maxPresentable || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "(not shown, as it is no id)"
	}
	return id
}

package store

import (
	"strings"
	"sync"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// Of what entries are made of, much is the same text in many: tenants, issuers, names
// of attributes. Each entry has read its own copies, and a million of them may
// be held.
const (
	maxShared       = 10_000 // texts that entries share
	maxSharedLength = 256    // in bytes; longer ones are not shared
)

// sharedTexts are those texts, each once. It is safe for concurrent use, and not asked
// on the hot path.
type sharedTexts struct {
	mu    sync.RWMutex
	known map[string]string
}

// of returns text, or the same from another entry.
func (s *sharedTexts) of(text string) string {
	if text == "" || len(text) > maxSharedLength {
		return strings.Clone(text) // it may be part of a longer one
	}
	s.mu.RLock()
	shared, ok := s.known[text]
	s.mu.RUnlock()
	if ok {
		return shared
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if shared, ok := s.known[text]; ok {
		return shared
	}
	if len(s.known) >= maxShared {
		return strings.Clone(text)
	}
	if s.known == nil {
		s.known = make(map[string]string)
	}
	shared = strings.Clone(text)
	s.known[shared] = shared
	return shared
}

// lean has an entry that was made for key share its texts. Its member may be in use
// elsewhere, so that it gets one of its own, which says the same.
func (s *sharedTexts) lean(key string, entry *Entry) {
	if strings.HasSuffix(key, entry.KCID) { // as all keys do
		entry.KCID = key[len(key)-len(entry.KCID):]
	}
	entry.Tenant, entry.Issuer = s.of(entry.Tenant), s.of(entry.Issuer)
	m := *entry.Member
	if m.KCID == entry.KCID {
		m.KCID = entry.KCID
	}
	if m.Tenant == entry.Tenant {
		m.Tenant = entry.Tenant
	}
	if m.Issuer == entry.Issuer {
		m.Issuer = entry.Issuer
	}
	if len(m.Attributes) > 0 {
		m.Attributes = s.leanAttributes(m.Attributes)
	}
	entry.Member = &m
}

// leanAttributes returns the same attributes with shared names, and with all values
// in one piece of memory: alone, each would take twice its length.
func (s *sharedTexts) leanAttributes(attributes map[string]member.Value) map[string]member.Value {
	size := 0
	for _, value := range attributes {
		for text := range value.All() {
			size += len(text)
		}
	}
	var texts strings.Builder
	texts.Grow(size) // enough for all: what has been taken from it stays where it is
	pack := func(text string) string {
		begin := texts.Len()
		texts.WriteString(text)
		return texts.String()[begin:]
	}
	lean := make(map[string]member.Value, len(attributes))
	for name, value := range attributes {
		if value.IsList() {
			items := value.Strings()
			for i, item := range items {
				items[i] = pack(item)
			}
			lean[s.of(name)] = member.List(items...)
		} else {
			lean[s.of(name)] = member.Text(pack(value.Text()))
		}
	}
	return lean
}

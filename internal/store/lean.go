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

	maxSharedSets      = 1000 // sets of names that entries share
	maxSharedSetLength = 4096 // in bytes; longer ones are not shared
)

// sharedTexts are those texts, each once. It is safe for concurrent use, and not asked
// on the hot path.
type sharedTexts struct {
	mu    sync.RWMutex
	known map[string]string
	sets  map[member.Value]*[]string // of names, by a list of them
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

// names returns the same names as another entry has, and how many bytes they take if
// no other has them.
func (s *sharedTexts) names(names []string) (shared *[]string, size int) {
	length := 0
	for _, name := range names {
		length += len(name)
	}
	key := member.List(names...)
	s.mu.RLock()
	shared, known := s.sets[key]
	s.mu.RUnlock()
	if known {
		return shared, 0
	}
	for i, name := range names {
		names[i] = s.of(name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if shared, known := s.sets[key]; known {
		return shared, 0
	}
	if len(s.sets) >= maxSharedSets || length > maxSharedSetLength {
		return &names, length + len(names)*16 + 24 // with headers
	}
	if s.sets == nil {
		s.sets = make(map[member.Value]*[]string)
	}
	s.sets[key] = &names
	return &names, 0
}

// lean has an entry that was made for key share its texts, and packs its member.
func (s *sharedTexts) lean(key string, entry *Entry) {
	if strings.HasSuffix(key, entry.KCID) { // as all keys do
		entry.KCID = key[len(key)-len(entry.KCID):]
	}
	entry.Tenant, entry.Issuer = s.of(entry.Tenant), s.of(entry.Issuer)
	m, more := &entry.Member, 0
	if m.KCID == entry.KCID {
		m.KCID = entry.KCID
	}
	if m.Tenant == entry.Tenant {
		m.Tenant = entry.Tenant
	}
	if m.Issuer == entry.Issuer {
		m.Issuer = entry.Issuer
	}
	entry.Member, entry.size = m.Packed(func(names []string) *[]string {
		shared, held := s.names(names)
		more = held
		return shared
	})
	entry.size += more
}

package keycloakcacheauth

import (
	"context"
	"sync"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/store"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// fakeWatcher tells of the changes that a test makes.
type fakeWatcher struct {
	fakeResolver
	identity string

	mu      sync.Mutex
	ctx     context.Context
	changed func(member.Change)
	watched int
}

func (f *fakeWatcher) WatchIdentity() string { return f.identity }

func (f *fakeWatcher) Watch(ctx context.Context, changed func(member.Change)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ctx, f.changed = ctx, changed
	f.watched++
}

// A source is watched once, from the first request on, for as long as any
// configuration wants it, whatever others watch.
func TestWatches(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config())
	cached := h.members.stores.common.memberStore
	one, same := &fakeWatcher{identity: "a"}, &fakeWatcher{identity: "a"}
	other, none := &fakeWatcher{identity: "b"}, &fakeWatcher{}
	var releases []func() error
	for _, w := range []*fakeWatcher{one, same, other, none} {
		releases = append(releases, cached.watches.add(cached, w))
	}
	if one.watched+same.watched+other.watched != 0 {
		t.Error("a source is watched before the first request")
	}
	alice := bearer(s.token("alice"), "t1")
	send(t, h, alice)
	if one.watched != 1 || same.watched != 0 || other.watched != 1 || none.watched != 0 {
		t.Errorf("watched %d, %d, %d and %d times; want 1, 0, 1, 0", one.watched, same.watched, other.watched, none.watched)
	}
	late := &fakeWatcher{identity: "c"}
	releases = append(releases, cached.watches.add(cached, late))
	if late.watched != 1 {
		t.Error("a source that is added later is not watched")
	}

	one.changed(member.Change{Tenant: "t1", KCID: s.users["alice"].ID})
	if from := cacheOf(send(t, h, alice)); from != "resolver" {
		t.Errorf("after her change she comes from %s", from)
	}
	other.changed(member.Change{Tenant: "t1", KCID: "nobody"})
	if from := cacheOf(send(t, h, alice)); from != "memory" {
		t.Errorf("after another's change she comes from %s", from)
	}

	_ = releases[0]()
	if one.ctx.Err() != nil {
		t.Error("the watch ended with the first who wanted it")
	}
	_ = releases[0]() // counts once
	_ = releases[1]()
	if one.ctx.Err() == nil || other.ctx.Err() != nil {
		t.Error("the watch did not end with the last who wanted it, or another's did")
	}
	cached.watches.end()
	if other.ctx.Err() == nil || late.ctx.Err() == nil {
		t.Error("watches outlive their store")
	}
}

func TestFlushesForChanges(t *testing.T) {
	for name, tc := range map[string]struct {
		change member.Change
		want   []store.Scope
	}{
		"everybody":           {member.Change{All: true, Tenant: "t1"}, []store.Scope{{All: true}}},
		"a tenant":            {member.Change{Tenant: "t1"}, []store.Scope{{Tenant: "t1"}}},
		"a user":              {member.Change{KCID: "a"}, []store.Scope{{KCID: "a"}}},
		"a user and a member": {member.Change{Tenant: "t1", KCID: "a", ID: "1"}, []store.Scope{{Tenant: "t1", KCID: "a"}, {Tenant: "t1", MemberID: "1"}}},
	} {
		t.Run(name, func(t *testing.T) {
			got := flushesFor(tc.change)
			if len(got) != len(tc.want) {
				t.Fatalf("got %v, want %v", got, tc.want)
			}
			for i := range got {
				if got[i] != tc.want[i] {
					t.Errorf("got %v, want %v", got, tc.want)
				}
			}
		})
	}
}

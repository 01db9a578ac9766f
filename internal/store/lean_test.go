package store

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"unsafe"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func sameText(a, b string) bool { return a == b && unsafe.StringData(a) == unsafe.StringData(b) }

func TestALeanEntrySaysTheSame(t *testing.T) {
	for name, attributes := range map[string]map[string]member.Value{
		"no attributes":            nil,
		"texts and lists":          {"a": member.Text("x"), "b": member.List("y", ""), "c": member.List(), "d": member.Text("")},
		"texts that look the same": {"a": member.Text("xx"), "b": member.Text("x"), "c": member.List("xx")},
		"a name that is long":      {strings.Repeat("n", 2*maxSharedLength): member.Text("x")},
	} {
		t.Run(name, func(t *testing.T) {
			entry, as := aliceEntry(), aliceEntry()
			entry.Member.Attributes, as.Member.Attributes = attributes, attributes
			before := maps.Clone(attributes)
			new(sharedTexts).lean("prefix:"+entry.KCID, entry)
			if !sameEntry(entry, as) {
				t.Errorf("got %+v of %+v, want %+v of %+v", entry.Member, entry, as.Member, as)
			}
			if !maps.EqualFunc(attributes, before, member.Value.Equal) {
				t.Error("the resolver's own attributes were changed")
			}
			if entry.Member.Attributes != nil {
				t.Error("the attributes are in the entry as the resolver made them")
			}
		})
	}
}

func TestEntriesShareTheirTexts(t *testing.T) {
	var texts sharedTexts
	entries := make([]*Entry, 2)
	for i := range entries {
		entry := aliceEntry()
		entry.Tenant, entry.Member.Tenant = strings.Clone("acme"), strings.Clone("acme")
		entry.Member.Attributes = map[string]member.Value{strings.Clone("role"): member.Text("x")}
		texts.lean("k:"+entry.KCID, entry)
		entries[i] = entry
	}
	a, b := entries[0], entries[1]
	for name := range a.Member.AllAttributes() {
		for other := range b.Member.AllAttributes() {
			if !sameText(name, other) {
				t.Error("the name of an attribute is there twice")
			}
		}
	}
	if !sameText(a.Tenant, b.Member.Tenant) || !sameText(a.KCID, a.Member.KCID) {
		t.Error("the tenant or the id is there twice")
	}
}

func TestSharedTextsAreBounded(t *testing.T) {
	var texts sharedTexts
	for i := range 2 * maxShared {
		if text := fmt.Sprint(i); texts.of(text) != text {
			t.Fatal("another text")
		}
	}
	texts.of(strings.Repeat("x", maxSharedLength+1))
	if n := len(texts.known); n != maxShared {
		t.Errorf("%d texts are kept, want %d", n, maxShared)
	}
}

func TestSetsOfNamesAreSharedAndBounded(t *testing.T) {
	var texts sharedTexts
	first, size := texts.names([]string{"plan", "roles"})
	if size != 0 {
		t.Errorf("names that others may share are taken for %d bytes", size)
	}
	if again, _ := texts.names([]string{"plan", "roles"}); again != first {
		t.Error("the same names are there twice")
	}
	if other, _ := texts.names([]string{"planroles"}); other == first || len(*other) != 1 {
		t.Error("other names share with them")
	}
	if _, size := texts.names([]string{strings.Repeat("x", maxSharedSetLength+1)}); size <= maxSharedSetLength {
		t.Errorf("names that are too long to be shared are taken for %d bytes", size)
	}
	for i := range 2 * maxSharedSets {
		_, size = texts.names([]string{"some", fmt.Sprint(i)})
	}
	if len(texts.sets) != maxSharedSets || size == 0 {
		t.Errorf("%d sets of names are kept, the last taken for %d bytes", len(texts.sets), size)
	}
}

package store

import (
	"strings"
	"testing"
)

func TestPagesOfLargeEventsAreSmall(t *testing.T) {
	large := record{fields: map[string]string{"x": strings.Repeat("x", 100_000)}}
	small := record{fields: map[string]string{"x": "y"}}
	pageOf := func(r record, n int) (page []record) {
		for range n {
			page = append(page, r)
		}
		return page
	}
	var p pageSizer
	if n := p.next(); n != firstPage {
		t.Errorf("the first page is of %d", n)
	}
	p.was(pageOf(large, p.next()+1), nil)
	if n := p.next(); n < 5 || n > 10 {
		t.Errorf("after a page of 100 kB events it is of %d", n)
	}
	for range 20 {
		p.was(pageOf(small, p.next()+1), nil)
	}
	if n := p.next(); n != maxPage {
		t.Errorf("after many small ones it is of %d", n)
	}
	for range 10 {
		p.was(nil, errTest)
	}
	if n := p.next(); n != 1 {
		t.Errorf("when none can be read it is of %d", n)
	}
	p.was(pageOf(record{fields: map[string]string{"x": strings.Repeat("x", 3*maxPageBytes)}}, 2), nil)
	if n := p.next(); n != 1 {
		t.Errorf("after a huge event it is of %d", n)
	}
}

func TestALogOfLargeEventsIsReadToItsEnd(t *testing.T) {
	m := &memoryLog{}
	for range 100 {
		_, _ = m.append(t.Context(), []string{fieldKind, "party", "x", strings.Repeat("x", 100_000)})
		_, _ = m.append(t.Context(), lineOf(flushEvent(Scope{KCID: "8d0c"})))
	}
	g := newTestLog(t, m)
	if n, err := g.tail.round(t.Context()); err != nil || n != 201 {
		t.Errorf("%d events, error %v", n, err)
	}
	for range 100 {
		_, _ = m.append(t.Context(), lineOf(flushEvent(Scope{KCID: "8d0c"})))
	}
	if n, err := g.tail.round(t.Context()); err != nil || n != 100 {
		t.Errorf("%d events, error %v", n, err)
	}
}

func TestEventsThatAreTextsCannotBeRead(t *testing.T) {
	text := strings.Repeat("x", maxEventSize)
	for kind, flushes := range map[string]bool{kindFlush: true, kindGeneration: true, "party": true, "": true, kindLogout: false} {
		fields := map[string]string{
			fieldKind: kind, fieldScope: nameTenant, fieldTenant: "acme", fieldID: "5f0c",
			fieldIssuer: testIssuer, fieldSID: "s", fieldIssuedAt: "1", fieldUntil: "2", "x": text,
		}
		if e, err := parseEvent(fields); err == nil || e.scope.All != flushes || e.flushes() != flushes {
			t.Errorf("%q is read as %+v, error %v", kind, e, err)
		}
	}
	name := strings.Repeat("x", maxNameLength)
	if e, err := parseEvent(fieldsOf(lineOf(flushEvent(Scope{Tenant: name, KCID: name})))); err != nil || e.scope.Tenant != name {
		t.Errorf("the longest flush of ours cannot be read: %v", err)
	}
}

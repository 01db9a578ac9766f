package member

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func keepNames(names []string) *[]string {
	kept := slices.Clone(names)
	return &kept
}

func TestAPackedMemberSaysTheSame(t *testing.T) {
	many := make(map[string]Value)
	for i := range 300 {
		many[fmt.Sprint("name ", i)] = Text(strings.Repeat("x", i))
	}
	for name, attributes := range map[string]map[string]Value{
		"no attributes":             nil,
		"texts and lists":           {"a": Text("x"), "b": List("y", ""), "c": List(), "d": Text("")},
		"texts that look like more": {"a": Text("\xff[\x01\x01x"), "": Text("nameless"), "\xff": List("\xff")},
		"many":                      many,
	} {
		t.Run(name, func(t *testing.T) {
			m := &Member{KCID: "k", Tenant: "acme", Issuer: "i", Active: true, ID: "\xff[id", Attributes: attributes}
			got, size := m.Packed(keepNames)
			if got.Attributes != nil || size == 0 {
				t.Errorf("it has attributes beside what is packed, or takes %d bytes", size)
			}
			if got.KCID != m.KCID || got.Tenant != m.Tenant || got.Issuer != m.Issuer || got.Active != m.Active || got.ID != m.ID {
				t.Errorf("it became %+v", got)
			}
			if back := got.Unpacked(); !reflect.DeepEqual(back, m) {
				t.Errorf("it came back as %+v", back)
			}
			if again, sizeAgain := got.Packed(nil); !reflect.DeepEqual(again, got) || sizeAgain != size {
				t.Error("packed twice it is another")
			}
			for _, one := range []*Member{m, &got} {
				if all := maps.Collect(one.AllAttributes()); len(all) != len(attributes) {
					t.Errorf("all are %v", all)
				}
				var names []string
				for name, value := range one.AllAttributes() {
					names = append(names, name)
					if !value.Equal(attributes[name]) || !one.Attribute(name).Equal(value) {
						t.Errorf("%q is %v and %v, want %v", name, value, one.Attribute(name), attributes[name])
					}
				}
				if !slices.IsSorted(names) {
					t.Errorf("the order is %q", names)
				}
				for range one.AllAttributes() {
					break // whoever has enough may leave
				}
				if value := one.Attribute("none"); value != (Value{}) {
					t.Errorf("what is not there is %v", value)
				}
			}
		})
	}
}

// What is given back is a member that a reader may spoil: the cache's stays as it was.
func TestAnUnpackedMemberIsTheReadersOwn(t *testing.T) {
	m := &Member{ID: "1", Attributes: map[string]Value{"plan": Text("gold")}}
	kept, _ := m.Packed(keepNames)
	m.Attributes["plan"] = Text("changed by the maker")
	kept.Unpacked().Attributes["plan"] = Text("changed by a reader")
	if plan := kept.Attribute("plan").Text(); plan != "gold" {
		t.Errorf("the plan is %q", plan)
	}
	if text, err := json.Marshal(kept.Unpacked().Attributes); err != nil || string(text) != `{"plan":"gold"}` {
		t.Errorf("it is %s, error %v", text, err)
	}
}

func TestToAskAPackedMemberCostsNoMemory(t *testing.T) {
	m := &Member{ID: "1", Attributes: map[string]Value{"plan": Text("gold"), "roles": List("editor")}}
	kept, _ := m.Packed(keepNames)
	if n := testing.AllocsPerRun(100, func() {
		if kept.Attribute("plan").Text() != "gold" || !kept.Attribute("roles").IsList() {
			t.Error("another value")
		}
	}); n > 0 {
		t.Errorf("it allocates %.0f times", n)
	}
}

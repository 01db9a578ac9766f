package member

import (
	"iter"
	"maps"
	"slices"
)

// packed are attributes as a cache keeps them: in two pieces of memory, of which one
// belongs to many members. A map of eight takes more than all their texts.
type packed struct {
	names  *[]string // in their order; nil: the member is not packed
	values Value     // a list of the values, each as it is in its Value, and of the member's id
}

// Packed returns the same member in less memory, for caches that keep many. Its
// Attributes are nil: [Member.Attribute] and [Member.AllAttributes] tell of them, and
// [Member.Unpacked] gives them back. Whatever the member was made of is not kept, but
// for KCID, Tenant and Issuer.
//
// It shares the names of its attributes with others: share returns the same names in
// memory that lasts. Size is how many bytes all else takes that is not Member itself.
func (m *Member) Packed(share func(names []string) *[]string) (in Member, size int) {
	if m.packed.names != nil {
		return *m, len(m.packed.values.packed)
	}
	names := slices.AppendSeq(make([]string, 0, len(m.Attributes)), maps.Keys(m.Attributes))
	slices.Sort(names)
	texts := make([]string, 0, len(names)+1)
	for _, name := range names {
		texts = append(texts, m.Attributes[name].packed)
	}
	in = *m
	in.Attributes = nil
	in.packed = packed{share(names), List(append(texts, m.ID)...)}
	in.ID = in.packed.value(len(names)).packed
	return in, len(in.packed.values.packed)
}

// Unpacked returns the same member with Attributes.
func (m *Member) Unpacked() *Member {
	if m.packed.names == nil {
		return m
	}
	out := *m
	out.packed = packed{}
	if len(*m.packed.names) > 0 {
		out.Attributes = maps.Collect(m.AllAttributes())
	}
	return &out
}

// Attribute returns the value of an attribute, whether the member is packed or not. It
// is the zero Value if there is none of that name.
func (m *Member) Attribute(name string) Value {
	if m.packed.names == nil {
		return m.Attributes[name]
	}
	if i, found := slices.BinarySearch(*m.packed.names, name); found {
		return m.packed.value(i)
	}
	return Value{}
}

// AllAttributes yields the attributes in the order of their names, whether the member
// is packed or not.
func (m *Member) AllAttributes() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		if m.packed.names == nil {
			for _, name := range slices.Sorted(maps.Keys(m.Attributes)) {
				if !yield(name, m.Attributes[name]) {
					return
				}
			}
			return
		}
		_, rest := number(m.packed.values.packed[2:])
		for _, name := range *m.packed.names {
			var text string
			if text, rest = next(rest); !yield(name, Value{text}) {
				return
			}
		}
	}
}

// value returns the one at an index.
func (p *packed) value(index int) Value {
	text, rest := "", p.values.packed
	for _, rest = number(rest[2:]); index >= 0; index-- {
		text, rest = next(rest)
	}
	return Value{text}
}

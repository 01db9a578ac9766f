package member

import (
	"encoding/json"
	"errors"
	"iter"
	"math/bits"
	"strings"
)

// Value is the value of an attribute: one string or a list of strings. The
// zero Value is the empty string. Values that are equal are so by `==`, too.
type Value struct {
	// A text is itself. A list is escape, listed, how many items it has, and of each
	// its length and itself; a text that begins like that is escape, texted, and
	// itself. So a value is one string whatever it is: caches hold millions.
	packed string
}

// UTF-8 has no byte that is escape, so hardly any text begins with it.
const (
	escape = '\xff'
	listed = '['
	texted = '"'
)

// Text returns the Value that is the one string s.
func Text(s string) Value {
	if s != "" && s[0] == escape {
		return Value{string([]byte{escape, texted}) + s}
	}
	return Value{s}
}

// List returns the Value that is a list of the given strings, in their order.
func List(items ...string) Value {
	size := 2 + lengthOf(uint(len(items)))
	for _, item := range items {
		size += lengthOf(uint(len(item))) + len(item)
	}
	var packed strings.Builder
	packed.Grow(size)
	packed.WriteByte(escape)
	packed.WriteByte(listed)
	writeNumber(&packed, uint(len(items)))
	for _, item := range items {
		writeNumber(&packed, uint(len(item)))
		packed.WriteString(item)
	}
	return Value{packed.String()}
}

// IsList tells whether the value is a list, also an empty one.
func (v Value) IsList() bool { return v.is(listed) }

func (v Value) is(kind byte) bool {
	return len(v.packed) >= 2 && v.packed[0] == escape && v.packed[1] == kind
}

// Text returns the single string, or "" for a list.
func (v Value) Text() string {
	switch {
	case v.is(listed):
		return ""
	case v.is(texted):
		return v.packed[2:]
	default:
		return v.packed
	}
}

// Strings returns the items of a list, or the single string as the only item.
// The caller may keep and change the result.
func (v Value) Strings() []string {
	if !v.IsList() {
		return []string{v.Text()}
	}
	count, rest := number(v.packed[2:])
	items := make([]string, count)
	for i := range items {
		items[i], rest = next(rest)
	}
	return items
}

// All yields what Strings returns, without a copy of it.
func (v Value) All() iter.Seq[string] {
	return func(yield func(string) bool) {
		if !v.IsList() {
			yield(v.Text())
			return
		}
		count, rest := number(v.packed[2:])
		for range count {
			var item string
			if item, rest = next(rest); !yield(item) {
				return
			}
		}
	}
}

// Equal tells whether two values are the same kind and hold the same strings.
func (v Value) Equal(other Value) bool { return v == other }

// Size returns the approximate number of bytes that the value's strings hold, once
// somebody has them.
func (v Value) Size() int {
	if !v.IsList() {
		return len(v.packed)
	}
	count, _ := number(v.packed[2:])
	return len(v.packed) + int(count)*16 // the strings' headers
}

// next returns the first item of a list, and the rest of it.
func next(rest string) (item, others string) {
	length, rest := number(rest)
	return rest[:length], rest[length:]
}

// Numbers are varints: seven bits a byte, the lowest first, with the highest bit set in
// all bytes but the last.

func writeNumber(to *strings.Builder, n uint) {
	for ; n >= 0x80; n >>= 7 {
		to.WriteByte(byte(n) | 0x80)
	}
	to.WriteByte(byte(n))
}

func lengthOf(n uint) int { return max(bits.Len(n)+6, 7) / 7 }

// number reads what writeNumber wrote.
func number(s string) (n uint, rest string) {
	for i := 0; ; i++ {
		n |= uint(s[i]&0x7f) << (7 * i)
		if s[i] < 0x80 {
			return n, s[i+1:]
		}
	}
}

// MarshalJSON writes a string or an array of strings.
func (v Value) MarshalJSON() ([]byte, error) {
	if v.IsList() {
		return json.Marshal(v.Strings())
	}
	return json.Marshal(v.Text())
}

// UnmarshalJSON reads a string or an array of strings, and nothing else.
func (v *Value) UnmarshalJSON(data []byte) error {
	if len(data) == 0 {
		return errors.New("attribute value is empty")
	}
	switch data[0] {
	case '"':
		var text string
		err := json.Unmarshal(data, &text)
		*v = Text(text)
		return err
	case '[':
		// pointers, because null would silently become an empty string
		var items []*string
		if err := json.Unmarshal(data, &items); err != nil {
			return err
		}
		list := make([]string, 0, len(items))
		for _, item := range items {
			if item == nil {
				return errors.New("attribute list holds null")
			}
			list = append(list, *item)
		}
		*v = List(list...)
		return nil
	default:
		return errors.New("attribute value is neither a string nor a list of strings")
	}
}

package member

import (
	"encoding/json"
	"errors"
	"iter"
	"slices"
)

// Value is the value of an attribute: one string or a list of strings. The
// zero Value is the empty string.
type Value struct {
	text string
	list *[]string // nil for a single string; a pointer, because most values are that and many are cached
}

// Text returns the Value that is the one string s.
func Text(s string) Value { return Value{text: s} }

// List returns the Value that is a list of the given strings, in their order.
func List(items ...string) Value {
	list := append(make([]string, 0, len(items)), items...)
	return Value{list: &list}
}

// IsList tells whether the value is a list, also an empty one.
func (v Value) IsList() bool { return v.list != nil }

// Text returns the single string, or "" for a list.
func (v Value) Text() string { return v.text }

// Strings returns the items of a list, or the single string as the only item.
// The caller may keep and change the result.
func (v Value) Strings() []string {
	if v.list == nil {
		return []string{v.text}
	}
	return slices.Clone(*v.list)
}

// All yields what Strings returns, without a copy of it.
func (v Value) All() iter.Seq[string] {
	return func(yield func(string) bool) {
		if v.list == nil {
			yield(v.text)
			return
		}
		for _, item := range *v.list {
			if !yield(item) {
				return
			}
		}
	}
}

// items are the items of a list.
func (v Value) items() []string {
	if v.list == nil {
		return nil
	}
	return *v.list
}

// Equal tells whether two values are the same kind and hold the same strings.
func (v Value) Equal(other Value) bool {
	return v.IsList() == other.IsList() && v.text == other.text && slices.Equal(v.items(), other.items())
}

// Size returns the approximate number of bytes that the value's strings hold.
func (v Value) Size() int {
	n := len(v.text)
	for _, item := range v.items() {
		n += len(item) + 16 // the string's header
	}
	return n
}

// MarshalJSON writes a string or an array of strings.
func (v Value) MarshalJSON() ([]byte, error) {
	if v.list != nil {
		return json.Marshal(*v.list)
	}
	return json.Marshal(v.text)
}

// UnmarshalJSON reads a string or an array of strings, and nothing else.
func (v *Value) UnmarshalJSON(data []byte) error {
	if len(data) == 0 {
		return errors.New("attribute value is empty")
	}
	switch data[0] {
	case '"':
		*v = Value{}
		return json.Unmarshal(data, &v.text)
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
		*v = Value{list: &list}
		return nil
	default:
		return errors.New("attribute value is neither a string nor a list of strings")
	}
}

package member

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestValue(t *testing.T) {
	tests := map[string]struct {
		value   Value
		isList  bool
		text    string
		strings []string
		json    string
	}{
		"the zero value is empty text":       {Value{}, false, "", []string{""}, `""`},
		"text":                               {Text("gold"), false, "gold", []string{"gold"}, `"gold"`},
		"a list":                             {List("a", "b"), true, "", []string{"a", "b"}, `["a","b"]`},
		"a list of one is not the text":      {List("a"), true, "", []string{"a"}, `["a"]`},
		"an empty list is still a list":      {List(), true, "", []string{}, `[]`},
		"a list may hold empty text":         {List(""), true, "", []string{""}, `[""]`},
		"text that looks like JSON is text":  {Text(`["a"]`), false, `["a"]`, []string{`["a"]`}, `"[\"a\"]"`},
		"text like a placeholder stays so":   {Text("{env.HOME}"), false, "{env.HOME}", []string{"{env.HOME}"}, `"{env.HOME}"`},
		"items of many lengths":              {List(strings.Repeat("a", 127), strings.Repeat("b", 128), strings.Repeat("c", 16384), "d"), true, "", []string{strings.Repeat("a", 127), strings.Repeat("b", 128), strings.Repeat("c", 16384), "d"}, `["` + strings.Repeat("a", 127) + `","` + strings.Repeat("b", 128) + `","` + strings.Repeat("c", 16384) + `","d"]`},
		"a list keeps order and repetitions": {List("b", "a", "b"), true, "", []string{"b", "a", "b"}, `["b","a","b"]`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := test.value.IsList(); got != test.isList {
				t.Errorf("IsList is %v", got)
			}
			if got := test.value.Text(); got != test.text {
				t.Errorf("Text is %q, want %q", got, test.text)
			}
			if got := test.value.Strings(); strings.Join(got, "\x00") != strings.Join(test.strings, "\x00") || len(got) != len(test.strings) {
				t.Errorf("Strings is %q, want %q", got, test.strings)
			}
			raw, err := json.Marshal(test.value)
			if err != nil || string(raw) != test.json {
				t.Fatalf("JSON is %s (%v), want %s", raw, err, test.json)
			}
			back := List("left over")
			if err := json.Unmarshal(raw, &back); err != nil || !back.Equal(test.value) || back.IsList() != test.isList {
				t.Errorf("came back as %+v (%v)", back, err)
			}
			back = Text("left over")
			if err := json.Unmarshal(raw, &back); err != nil || !back.Equal(test.value) {
				t.Errorf("came back into text as %+v (%v)", back, err)
			}
		})
	}
}

// Values are packed, lists behind bytes that no UTF-8 has. Texts are any bytes.
func TestNoTextIsTakenForAList(t *testing.T) {
	for _, text := range []string{"\xff", "\xff[", "\xff[\x00", "\xff[\x01\x01a", "\xff[\xff\xff\xff", "\xff\"", "\xff\"a", "\xff\xff[", "a\xff["} {
		value := Text(text)
		all := slices.Collect(value.All())
		if value.IsList() || value.Text() != text || !slices.Equal(value.Strings(), []string{text}) || !slices.Equal(all, []string{text}) {
			t.Errorf("%q became %q, a list: %t", text, value.Strings(), value.IsList())
		}
		list := List(text, "", text)
		if items := slices.Collect(list.All()); !list.IsList() || !slices.Equal(items, []string{text, "", text}) || !slices.Equal(list.Strings(), items) {
			t.Errorf("a list of %q became %q", text, items)
		}
	}
}

func TestALongListComesBack(t *testing.T) {
	items := make([]string, 300) // whose number takes two bytes
	items[299] = "last"
	if got := List(items...).Strings(); !slices.Equal(got, items) {
		t.Errorf("%d items came back", len(got))
	}
	for item := range List("a", "b").All() {
		if item != "a" {
			t.Errorf("%q comes after the reader has left", item)
		}
		break
	}
}

func TestValuesThatAreNotEqual(t *testing.T) {
	values := []Value{{}, Text("\xff["), Text("\xff\"\xff["), Text("a"), Text("b"), List(), List(""), List("a"), List("a", "b"), List("b", "a")}
	for i, a := range values {
		for j, b := range values {
			if a.Equal(b) != (i == j) {
				t.Errorf("%+v and %+v: Equal is %v", a, b, a.Equal(b))
			}
		}
	}
}

// A member is shared between requests: whoever gets a list must not be able to
// change it for the others.
func TestValuesDoNotShareTheirStrings(t *testing.T) {
	items := []string{"a", "b"}
	value := List(items...)
	items[0] = "changed by the maker"
	value.Strings()[0] = "changed by a reader"
	if got := value.Strings(); got[0] != "a" {
		t.Errorf("the value became %q", got)
	}
	_ = append(value.Strings()[:1], "changed by appending")
	if got := value.Strings(); got[1] != "b" {
		t.Errorf("the value became %q", got)
	}
}

func TestValueUnmarshalJSONRefuses(t *testing.T) {
	tests := map[string]string{
		"null":                        `null`,
		"a number":                    `1`,
		"a boolean":                   `true`,
		"an object":                   `{"a":"b"}`,
		"a list of numbers":           `[1]`,
		"a list of lists":             `[["a"]]`,
		"a list with null in it":      `["a",null]`,
		"nothing":                     ``,
		"a string that does not end":  `"a`,
		"a list that does not end":    `["a"`,
		"something after the string":  `"a" "b"`,
		"white space before the list": ` ["a"]`, // encoding/json never hands that on
	}
	for name, raw := range tests {
		t.Run(name, func(t *testing.T) {
			var v Value
			if err := v.UnmarshalJSON([]byte(raw)); err == nil {
				t.Errorf("accepted as %+v", v)
			}
		})
	}
	t.Run("null within attributes", func(t *testing.T) {
		var attributes map[string]Value
		if err := json.Unmarshal([]byte(`{"roles":null}`), &attributes); err == nil {
			t.Errorf("accepted as %+v", attributes)
		}
	})
}

func TestValueSizeCountsWhatItHolds(t *testing.T) {
	tests := map[string]struct {
		value Value
		least int
	}{
		"text":                  {Text("12345"), 5},
		"a list":                {List("12345", "67890"), 10},
		"a list of empty texts": {List(make([]string, 1000)...), 16000}, // or it would be free to store
	}
	for name, test := range tests {
		if got := test.value.Size(); got < test.least {
			t.Errorf("%s: size is %d, want at least %d", name, got, test.least)
		}
	}
	if got := (Value{}).Size(); got != 0 {
		t.Errorf("the zero value has size %d", got)
	}
}

func FuzzValueUnmarshalJSON(f *testing.F) {
	for _, seed := range []string{`"a"`, `["a","b"]`, `[]`, `null`, `["a",null]`, `{}`, `"\ud800"`, `[`, ``} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var v, back Value
		if json.Unmarshal(raw, &v) != nil {
			return
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(again, &back); err != nil || !back.Equal(v) {
			t.Errorf("%s became %s (%v)", raw, again, err)
		}
	})
}

package keycloakcacheauth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

const document = "docs/configuration.md"

func readDocument(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestEveryOptionIsDocumented(t *testing.T) {
	text := readDocument(t)
	resolvers, err := os.ReadFile("docs/resolvers.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range jsonFields(configTypes...) {
		if !strings.Contains(text+string(resolvers), "`"+name+"`") {
			t.Errorf("JSON name `%s` is not in %s, nor in docs/resolvers.md", name, document)
		}
	}
	// in the tables an option's line begins with it
	for owner, options := range map[string]map[string]func() error{
		directive: new(Handler).options(nil), "issuer": new(Issuer).options(nil),
		"introspect": new(Introspect).options(nil), "dpop": new(DPoP).options(nil),
		"memory": new(Memory).options(nil), "store": new(Store).options(nil),
		"assertion": new(Assertion).options(nil),
	} {
		for option := range options {
			if !regexp.MustCompile("(?m)^\\| `" + option + "[ `]").MatchString(text) {
				t.Errorf("%s option %s has no row in %s", owner, option, document)
			}
		}
	}
	for _, name := range signingAlgorithms {
		if !strings.Contains(text, name) {
			t.Errorf("algorithm %s is not in %s", name, document)
		}
	}
	for _, name := range defaultOwned {
		if !strings.Contains(strings.ToLower(text), strings.ToLower(name)) {
			t.Errorf("header %s is not in %s", name, document)
		}
	}
}

// blocksOf returns the document's blocks of code in a language.
func blocksOf(text, language string) []string {
	var blocks []string
	for _, match := range regexp.MustCompile("(?s)\n```"+language+"\n(.*?)```").FindAllStringSubmatch(text, -1) {
		blocks = append(blocks, match[1])
	}
	return blocks
}

// The document's example must work, and say the same in both languages.
func TestDocumentedExample(t *testing.T) {
	setTestEnvironment(t)
	text := readDocument(t)
	_, example, found := strings.Cut(text, "\n## A full example\n")
	if !found {
		t.Fatalf("%s has no example", document)
	}
	caddyfiles, jsons := blocksOf(example, "caddyfile"), blocksOf(example, "json")
	if len(caddyfiles) != 1 || len(jsons) != 1 {
		t.Fatalf("%d and %d examples, want one of each language", len(caddyfiles), len(jsons))
	}
	adapted, err := adapt(t, caddyfiles[0])
	if err != nil {
		t.Fatal(err)
	}
	got, want := asObject(t, json.RawMessage(adapted)), asObject(t, json.RawMessage(jsons[0]))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the Caddyfile adapts to\n%s\nwhich is not the JSON beside it", adapted)
	}
	for _, config := range handlersIn(t, adapted) {
		mustLoadJSON(t, config)
	}
}

// Every Caddyfile that the project shows is formatted as `caddy fmt` would,
// adapts, and loads.
func TestShownCaddyfilesWork(t *testing.T) {
	setTestEnvironment(t)
	shown := make(map[string]string)
	example, err := os.ReadFile("Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	shown["Caddyfile.example"] = string(example)
	for i, block := range blocksOf(readDocument(t), "caddyfile") {
		shown[fmt.Sprintf("%s number %d", document, i+1)] = block
	}
	for name, text := range shown {
		t.Run(name, func(t *testing.T) {
			if formatted := string(caddyfile.Format([]byte(text))); formatted != text {
				t.Errorf("caddy fmt would make it\n%s", formatted)
			}
			adapted, err := adapt(t, text)
			if err != nil {
				t.Fatal(err)
			}
			handlers := handlersIn(t, adapted)
			if len(handlers) == 0 {
				t.Error("it does not use the handler")
			}
			for _, config := range handlers {
				mustLoadJSON(t, config)
			}
		})
	}
}

// The guide's Caddyfiles name files that the reader has, so they are not loaded.
func TestGuidesCaddyfilesAdapt(t *testing.T) {
	guide, err := os.ReadFile("docs/migrating-from-django.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := blocksOf(string(guide), "caddyfile")
	if len(blocks) == 0 {
		t.Fatal("it shows no Caddyfile")
	}
	for i, block := range blocks {
		if formatted := string(caddyfile.Format([]byte(block))); formatted != block {
			t.Errorf("caddy fmt would make number %d\n%s", i+1, formatted)
		}
		if _, err := adapt(t, block); err != nil {
			t.Errorf("number %d: %v", i+1, err)
		}
	}
}

// The README begins with one handler in both languages, and names every option.
func TestReadme(t *testing.T) {
	setTestEnvironment(t)
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	caddyfiles, jsons := blocksOf(text, "caddyfile"), blocksOf(text, "json")
	if len(caddyfiles) == 0 || len(jsons) != 1 {
		t.Fatalf("%d Caddyfiles and %d JSON configurations", len(caddyfiles), len(jsons))
	}
	adapted, err := adapt(t, caddyfiles[0])
	if err != nil {
		t.Fatal(err)
	}
	got, want := handlersIn(t, adapted), handlersIn(t, json.RawMessage(jsons[0]))
	if len(got) != 1 || len(want) != 1 || !reflect.DeepEqual(asObject(t, got[0]), asObject(t, want[0])) {
		t.Errorf("the Caddyfile adapts to\n%s\nwhich is not the JSON beside it\n%s", got, want)
	}
	for option := range new(Handler).options(nil) {
		if !strings.Contains(text, "`"+option) && !strings.Contains(text, option+" ") {
			t.Errorf("option %s is not in the README", option)
		}
	}
}

// The resolver that docs/resolvers.md shows, and its test, are those of
// examples/resolver, which are tested.
func TestShownResolverIsTheTestedOne(t *testing.T) {
	text, err := os.ReadFile("docs/resolvers.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := bytes.Cut(text, []byte("\n## Writing one\n"))
	blocks := blocksOf(string(text), "go")
	if !found || len(blocks) != 2 {
		t.Fatalf("%d blocks of Go, want the resolver and its test", len(blocks))
	}
	for i, file := range []string{"examples/resolver/resolver.go", "examples/resolver/resolver_test.go"} {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(code), blocks[i]) {
			t.Errorf("%s does not hold what the document shows", file)
		}
	}
}

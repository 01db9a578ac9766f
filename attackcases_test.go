package keycloakcacheauth

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every attack case of the list is in the name of a test somewhere in the
// project, or the list says why it is in none.
func TestEveryAttackCaseIsTried(t *testing.T) {
	list, err := os.ReadFile("testdata/attack-cases.txt")
	if err != nil {
		t.Fatal(err)
	}
	tried := testNames(t)
	id := regexp.MustCompile(`^[A-Z]{2}-[0-9]{3}$`)
	cases := 0
	for line := range strings.Lines(string(list)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, excused := strings.Cut(line, ":")
		if excused {
			if !id.MatchString(name) || len(strings.TrimSpace(reason)) < 20 {
				t.Errorf("%q is no case with a reason", line)
			}
			if strings.Contains(tried, name) {
				t.Errorf("%s is excused, and tried all the same", name)
			}
			continue
		}
		for name := range strings.FieldsSeq(line) {
			cases++
			if !id.MatchString(name) {
				t.Errorf("%q is no case", name)
			}
			if !strings.Contains(tried, name) && !strings.Contains(string(list), "\n"+name+":") {
				t.Errorf("%s is in no test's name", name)
			}
		}
	}
	if cases < 100 {
		t.Errorf("the list has %d cases", cases)
	}
}

// testNames returns all string literals and function names of all tests, the
// names of golden files and the rows of forged tokens: whatever can be in a
// test's name.
func testNames(t *testing.T) string {
	t.Helper()
	var names strings.Builder
	inFunction := regexp.MustCompile("_([A-Z]{2})([0-9]{3})") // TestNobody_CC001
	literal := regexp.MustCompile("\"[^\"\n]*\"|`[^`]*`|func Test\\w+")
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if filepath.Ext(path) == ".caddyfiletest" { // error_cf_001_…
			names.WriteString(strings.ToUpper(strings.ReplaceAll(entry.Name(), "_", "-")) + "\n")
		}
		if !strings.HasSuffix(path, "_test.go") && entry.Name() != "tokens.jsonl" { // the rows of forged tokens
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, name := range literal.FindAllString(string(text), -1) {
			names.WriteString(inFunction.ReplaceAllString(name, "$1-$2") + "\n")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names.String()
}

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheChartIsWellFormedAndShowsTheRatios(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chart.svg")
	if err := sampleReport().writeChart(path); err != nil {
		t.Fatal(err)
	}
	text := wellFormed(t, path)
	for _, part := range []string{
		`<rect class="base" x="260" y="81" width="300"`, `<rect class="ours" x="260" y="107" width="270"`,
		"0.90  (45,900/s)", "member, &lt;respond&gt;", "prefers-color-scheme: dark",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("the chart lacks %q:\n%s", part, text)
		}
	}
}

// wellFormed returns the text of a file, which must be good XML.
func wellFormed(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for decoder := xml.NewDecoder(strings.NewReader(string(text))); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			return string(text)
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	}
}

func TestTheDocumentHoldsTheTables(t *testing.T) {
	path := filepath.Join(t.TempDir(), "performance.md")
	r := sampleReport()
	if err := r.writeDocument(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var tables strings.Builder
	r.writeTables(&tables)
	if !strings.Contains(string(text), strings.TrimSpace(tables.String())) || !strings.Contains(string(text), "| a step") || strings.Contains(string(text), "{{") {
		t.Errorf("the document:\n%s", text)
	}
}

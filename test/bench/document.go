package main

import (
	"bytes"
	_ "embed"
	"io"
	"os"
	"strconv"
	"strings"
	"text/template"
)

//go:embed performance.md.tmpl
var documentTemplate string

// writeDocument writes the document on performance with the report's tables in it.
func (r *report) writeDocument(path string) error {
	parsed, err := template.New("document").Parse(documentTemplate)
	if err != nil {
		return err
	}
	parts := make(map[string]string)
	for name, write := range map[string]func(io.Writer){
		"Tables": r.writeTables, "HotPath": r.Hot.write, "Scaling": r.writeScaling, "Bursts": r.writeBursts,
	} {
		var part strings.Builder
		write(&part)
		parts[name] = strings.TrimSpace(part.String())
	}
	var text bytes.Buffer
	if err := parsed.Execute(&text, parts); err != nil {
		return err
	}
	return os.WriteFile(path, text.Bytes(), 0o644)
}

// thousands writes a number with commas.
func thousands(value float64) string {
	digits := strconv.FormatInt(int64(value), 10)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

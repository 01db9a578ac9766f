package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// asXcaddy are the flags that xcaddy builds with.
func asXcaddy() []string {
	return []string{"-trimpath", "-tags", "nobadger,nomysql,nopgx", "-ldflags", "-s -w"}
}

const (
	plainCaddy = "github.com/caddyserver/caddy/v2/cmd/caddy"
	withModule = "./cmd/caddy"
)

// binaryCase compares the sizes of binaries, and tells what each dependency is of the
// difference: its symbols, code and data, in builds that were not stripped, and a part
// of what has no symbols. That is for the most part the table of functions, which grows
// with the code.
func (b *bench) binaryCase(o *owner) error {
	sizes, symbols := make(map[string]int64), make(map[string]map[string]symbolSize)
	err := b.cores.everywhere(o.ctx, func() error {
		for _, target := range []string{plainCaddy, withModule} {
			path := filepath.Join(b.dir, "sized")
			if err := build(o.ctx, path, target, asXcaddy()...); err != nil {
				return err
			}
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			sizes[target] = info.Size()
			if err := build(o.ctx, path, target, asXcaddy()[:3]...); err != nil {
				return err
			}
			if symbols[target], err = symbolSizes(o.ctx, path); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	const mb = 1e6
	more := float64(sizes[withModule]-sizes[plainCaddy]) / mb
	b.report.set(keyBinary, []float64{more}, fmt.Sprintf("%.1f MB, plain Caddy %.1f MB", float64(sizes[withModule])/mb, float64(sizes[plainCaddy])/mb))
	shares := make([]share, 0, len(groups()))
	var named, code float64
	codes := make([]float64, 0, len(groups()))
	for _, g := range groups() {
		with, without := symbols[withModule][g.name], symbols[plainCaddy][g.name]
		all, text := float64(with.all-without.all)/mb, float64(with.code-without.code)/mb
		shares, codes = append(shares, share{g.name, all}), append(codes, text)
		named, code = named+all, code+text
	}
	for i, s := range shares {
		b.report.addShare(s.Name, s.MB+(more-named)*codes[i]/code)
	}
	return nil
}

// group is a dependency, and how the paths of its packages begin.
type group struct {
	name     string
	prefixes []string
}

// groups are looked through in turn, and the last one takes what is left.
func groups() []group {
	return []group{
		{"the module itself", []string{"github.com/keycloak-cache-auth/"}},
		{"SQLite", []string{"modernc.org/"}},
		{"go-redis", []string{"github.com/redis/"}},
		{"PostgreSQL (pgx)", []string{"github.com/jackc/"}},
		{"MySQL", []string{"github.com/go-sql-driver/"}},
		{"otter", []string{"github.com/maypok86/"}},
		{"gocache", []string{"github.com/eko/"}},
		{"go-oidc, go-jose, oauth2", []string{"github.com/coreos/go-oidc", "github.com/go-jose/", "golang.org/x/oauth2"}},
		{"go-json-experiment", []string{"github.com/go-json-experiment/"}},
		{"standard library and others", nil},
	}
}

// symbolSize is the size of symbols in bytes, of all and of those that are code.
type symbolSize struct{ all, code int64 }

// symbolSizes adds up the symbols of a binary by group.
func symbolSizes(ctx context.Context, path string) (map[string]symbolSize, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "nm", "-size", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	sums, err := addSymbols(out)
	if ended := cmd.Wait(); err == nil && ended != nil {
		err = fmt.Errorf("go tool nm: %w", ended)
	}
	return sums, err
}

// addSymbols reads what `go tool nm -size` prints: address, size, type and name.
func addSymbols(r io.Reader) (map[string]symbolSize, error) {
	sums := make(map[string]symbolSize)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 {
			continue // undefined symbols have neither address nor size
		}
		size, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		kind, name := strings.ToLower(fields[2]), groupOf(strings.Join(fields[3:], " "))
		sum := sums[name]
		switch kind {
		case "b", "u":
			continue // zeroed when the program starts: nothing in the file
		case "t":
			sum.code += size
		}
		sum.all += size
		sums[name] = sum
	}
	return sums, lines.Err()
}

func groupOf(symbol string) string {
	all := groups()
	for _, g := range all {
		for _, prefix := range g.prefixes {
			if strings.Contains(symbol, prefix) {
				return g.name
			}
		}
	}
	return all[len(all)-1].name
}

package dpop

import (
	"net/url"
	"strings"
)

// target is what of a URL counts for htu: neither query nor fragment (RFC 9449 §4.3).
type target struct {
	origin string // scheme and authority
	path   string // as it is escaped
}

// parseTarget reads an absolute http or https URL in normal form, so that two are equal
// if RFC 3986 §6.2.2 and §6.2.3 say so: letter case of scheme and host, default port,
// empty path, and how unreserved characters are escaped.
//
// It leaves one rule out. Dot segments are not resolved, and no URL with any is
// accepted: servers behind us may resolve them or not, and a proof for one address
// must not be good for another. Clients resolve them before they send.
func parseTarget(text string) (target, bool) {
	for i := range len(text) { // RFC 3986 §2: of other characters each reader makes something else
		if text[i] <= ' ' || text[i] >= 0x7f {
			return target{}, false
		}
	}
	u, err := url.Parse(text)                               // lowers the scheme
	if err != nil || u.User != nil || u.Hostname() == "" || // also if it is opaque
		strings.ContainsFunc(u.Host, func(r rune) bool { return r == '%' || r >= 0x7f }) { // escaped
		return target{}, false
	}
	port := u.Port()
	host := strings.ToLower(strings.TrimSuffix(u.Host, ":"+port)) // with "" too: "host:"
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return target{}, false
	case port != "" && (u.Scheme != "https" || port != "443") && (u.Scheme != "http" || port != "80"):
		host += ":" + port
	}
	// As written: u.EscapedPath alone would take "/a%2Fb" for "/a/b" as soon as there
	// is another character in it that should have been escaped.
	path := u.RawPath
	if path == "" {
		path = u.EscapedPath()
	}
	if path = normalizePath(path); hasDotSegment(path) {
		return target{}, false
	}
	return target{u.Scheme + "://" + host, path}, true
}

// normalizePath unescapes what needs no escape (RFC 3986 §2.3) and writes the other
// escapes in capitals. Each "%" of path has its two digits, as url.Parse saw to.
func normalizePath(path string) string {
	if path == "" {
		return "/"
	}
	if !strings.Contains(path, "%") {
		return path
	}
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(path))
	for i := 0; i < len(path); i++ {
		if path[i] != '%' {
			_ = b.WriteByte(path[i])
			continue
		}
		octet := unhex(path[i+1])<<4 | unhex(path[i+2])
		i += 2
		if unreserved(octet) {
			_ = b.WriteByte(octet)
		} else {
			_, _ = b.Write([]byte{'%', digits[octet>>4], digits[octet&15]})
		}
	}
	return b.String()
}

func unhex(digit byte) byte {
	switch {
	case digit <= '9':
		return digit - '0'
	case digit <= 'F':
		return digit - 'A' + 10
	}
	return digit - 'a' + 10
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

func hasDotSegment(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

package token

import "strings"

// isBearer reports whether raw has the form of a bearer token, b64token in RFC 6750
// §2.1, which opaque tokens have as well.
func isBearer(raw string) bool {
	body := strings.TrimRight(raw, "=")
	for i := range len(body) {
		if c := body[i]; (c < 'a' || 'z' < c) && (c < 'A' || 'Z' < c) && (c < '0' || '9' < c) &&
			strings.IndexByte("-._~+/", c) < 0 {
			return false
		}
	}
	return body != ""
}

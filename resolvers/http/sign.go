package httpresolver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// sign returns the value of the header that proves who asks:
// `t=<seconds since 1970>,v1=<HMAC-SHA-256 in hexadecimal>`, of these lines, without
// a newline at the end:
//
//	the seconds since 1970, as in t
//	the method, GET or POST
//	the path, percent-decoded: what WSGI, net/http and others call the path
//	the query as it was sent, without the question mark; empty if there is none
//	the SHA-256 of the body, in hexadecimal
//
// No line can hold a newline, so that nothing can be moved from one to another.
func sign(secret, method string, u *url.URL, body []byte, at time.Time) string {
	digest := sha256.Sum256(body)
	seconds := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = mac.Write([]byte(strings.Join([]string{
		seconds, method, u.Path, u.RawQuery, hex.EncodeToString(digest[:]),
	}, "\n")))
	return "t=" + seconds + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

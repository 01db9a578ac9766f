package httpresolver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// The values are documented, so that other implementations can be tried with them.
func TestSignature(t *testing.T) {
	at := time.Unix(1767225600, 999)
	tests := map[string]struct{ method, url, body, want string }{
		"a GET":                 {"GET", "https://app/members/acme/1f0e?x=a%20b", "", "602f77e3dafee2c55666ed5b9c9918e3b5050424c93e5bc75989180fc3f24dec"},
		"a GET without a query": {"GET", "https://app/members/acme/1f0e", "", "1fcf5435c4b1ea15846596e055292a317999c2cf7ad0f37811b1ce6f69bde15f"},
		"a POST":                {"POST", "https://app/members", `{"tenant":"acme"}`, "dc9c191f3cde5f6ab6ec6508e58054386a807f3c74d38777cf39edb387986e2b"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			u, err := url.Parse(test.url)
			if err != nil {
				t.Fatal(err)
			}
			if got := sign("s3cret", test.method, u, []byte(test.body), at); got != "t=1767225600,v1="+test.want {
				t.Errorf("got %s", got)
			}
		})
	}
}

// verify is what an application does, with what net/http shows of the request.
func verify(secret, method, path, query, body, value string) bool {
	stamp, mac, ok := strings.Cut(strings.TrimPrefix(value, "t="), ",v1=")
	digest := sha256.Sum256([]byte(body))
	want := hmac.New(sha256.New, []byte(secret))
	want.Write([]byte(strings.Join([]string{stamp, method, path, query, hex.EncodeToString(digest[:])}, "\n")))
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	return ok && err == nil && time.Since(time.Unix(seconds, 0)).Abs() < time.Minute && mac == hex.EncodeToString(want.Sum(nil))
}

func TestRequestsAreSigned(t *testing.T) {
	t.Setenv("KCA_TEST_SECRET", "s3cret")
	tests := map[string]struct{ config, header string }{
		"a GET":             {`{"url":"URL/m/{tenant}/{kc_id}?issuer={issuer}","hmac_secret":"{env.KCA_TEST_SECRET}"}`, "X-Caddy-Signature"},
		"a POST":            {`{"url":"URL/m","method":"POST","hmac_secret":"s3cret"}`, "X-Caddy-Signature"},
		"in another header": {`{"url":"URL/m/{tenant}/{kc_id}/","hmac_secret":"s3cret","hmac_header":"x-signature"}`, "X-Signature"},
		"without a path":    {`{"url":"URL","method":"POST","hmac_secret":"s3cret"}`, "X-Caddy-Signature"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var path, query string
			a := newApp(t, func(w http.ResponseWriter, r *http.Request) {
				path, query = r.URL.Path, r.URL.RawQuery
				record(alice)(w, r)
			})
			q := aliceAtAcme
			q.KCID = "k1 é%2F?&=" // encoded in several ways
			if _, err := mustLoad(t, a.URL, test.config).Resolve(t.Context(), q); err != nil {
				t.Fatal(err)
			}
			got := a.requests()[0]
			value := got.header.Get(test.header)
			if !verify("s3cret", got.method, path, query, got.body, value) {
				t.Errorf("%s does not sign %s %s?%s %s", value, got.method, path, query, got.body)
			}
			if verify("other", got.method, path, query, got.body, value) {
				t.Error("it is good for another secret")
			}
		})
	}
}

// The function of the documentation, with no more of Django than it uses.
func TestSignatureInPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	var path, query string
	a := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		path, query = r.URL.Path, r.URL.RawQuery
		record(alice)(w, r)
	})
	r := mustLoad(t, a.URL, `{"url":"URL/m/é/{tenant}/{kc_id}?issuer={issuer}","hmac_secret":"s3cret"}`)
	q := member.Query{Tenant: "acme", KCID: "k1 é+%2F", Issuer: "https://sso/realms/a b"}
	if _, err := r.Resolve(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	const program = `
import hashlib, hmac, sys, time

def asked_by_caddy(request, secret):
    value = dict(f.partition("=")[::2] for f in request.headers.get("X-Caddy-Signature", "").split(","))
    sent_at = value.get("t", "")
    signed = "\n".join([sent_at, request.method, request.path, request.META["QUERY_STRING"],
                        hashlib.sha256(request.body).hexdigest()])
    mac = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
    fresh = sent_at.isdecimal() and abs(time.time() - int(sent_at)) < 60
    return fresh and hmac.compare_digest(mac, value.get("v1", ""))

class Request:
    method, path, body = "GET", sys.argv[1], b""
    META = {"QUERY_STRING": sys.argv[2]}
    headers = {"X-Caddy-Signature": sys.argv[3]}

assert asked_by_caddy(Request, "s3cret")
assert not asked_by_caddy(Request, "other")
Request.path += "x"
assert not asked_by_caddy(Request, "s3cret")
Request.headers = {}
assert not asked_by_caddy(Request, "s3cret")
`
	out, err := exec.CommandContext(t.Context(), python, "-c", program, path, query, a.requests()[0].header.Get("X-Caddy-Signature")).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

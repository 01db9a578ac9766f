package introspect

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestAnswers(t *testing.T) {
	pad := func(n int) string { return active + strings.Repeat(" ", n-len(active)) }
	for name, test := range map[string]struct {
		status   int // 0: 200
		body     string
		active   bool
		inactive bool
		want     string // otherwise: what the error says
		pause    bool   // whether the next call has to wait
	}{
		"active":                        {body: active, active: true},
		"active, of the greatest size":  {body: pad(256 << 10), active: true},
		"one byte more":                 {body: pad(256<<10 + 1), want: "262144 bytes"},
		"inactive":                      {body: `{"active":false}`, inactive: true},
		"inactive, with more members":   {body: `{"sub":"a","active":false}`, inactive: true},
		"without active":                {body: `{"sub":"body-mark"}`, want: "does not say"},
		"active as a string":            {body: `{"active":"true"}`, want: "boolean"},
		"inactive as a string":          {body: `{"active":"false"}`, want: "boolean"},
		"active as a number":            {body: `{"active":1}`, want: "boolean"},
		"active null":                   {body: `{"active":null}`, want: "boolean"},
		"active twice":                  {body: `{"active":false,"active":true}`, want: "unambiguous"},
		"active once more, by escape":   {body: `{"active":true,"\u0061ctive":false}`, want: "unambiguous"},
		"active once more, as Active":   {body: `{"active":true,"Active":false}`, want: "unambiguous"},
		"only Active":                   {body: `{"Active":true}`, want: "does not say"},
		"another name twice":            {body: `{"active":true,"sub":"a","sub":"b"}`, want: "unambiguous"},
		"another name in two cases":     {body: `{"active":true,"sub":"a","ſub":"b"}`, want: "unambiguous"},
		"a name twice, further in":      {body: `{"active":true,"a":[{"b":1,"b":2}]}`, want: "unambiguous"},
		"not UTF-8":                     {body: "{\"active\":true,\"sub\":\"\xff\"}", want: "JSON object"},
		"a list":                        {body: `[{"active":true}]`, want: "JSON object"},
		"two objects":                   {body: active + active, want: "JSON object"},
		"a page for people":             {body: "<html>body-mark</html>", want: "JSON object"},
		"nothing":                       {body: "", want: "JSON object"},
		"cut short":                     {body: `{"active":true,"sub":`, want: "JSON object"},
		"a signed answer":               {body: "eyJhbGciOiJub25lIn0.body-mark.x", want: "JSON object"},
		"201":                           {status: 201, body: active, want: "status 201"},
		"204":                           {status: 204, want: "status 204"},
		"400 about the request":         {status: 400, body: `{"error":"invalid_request","error_description":"body-mark"}`, want: "status 400"},
		"400 without JSON":              {status: 400, body: "body-mark", want: "status 400"},
		"400 about the client":          {status: 400, body: `{"error":"invalid_client","error_description":"body-mark"}`, want: "client authentication failed", pause: true},
		"400 about the client's rights": {status: 400, body: `{"error":"unauthorized_client"}`, want: "client authentication failed", pause: true},
		"401":                           {status: 401, body: `{"error":"body-mark"}`, want: "client authentication failed", pause: true},
		"403":                           {status: 403, body: "body-mark", want: "confidential client", pause: true},
		"404":                           {status: 404, body: "body-mark", want: "no endpoint", pause: true},
		"413":                           {status: 413, body: "body-mark", want: "status 413"},
		"429":                           {status: 429, body: "body-mark", want: "status 429", pause: true},
		"500":                           {status: 500, body: "body-mark", want: "status 500"},
		"502":                           {status: 502, body: "body-mark", want: "status 502", pause: true},
		"503 with an active body":       {status: 503, body: active, want: "status 503", pause: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			status := test.status
			if status == 0 {
				status = http.StatusOK
			}
			f.answers(say(status, test.body))
			c, _ := newTestClient(t, f)
			answer, err := c.Introspect(t.Context(), rawToken)
			switch {
			case test.active:
				if err != nil || string(answer) != test.body {
					t.Fatalf("got %.100s, %v", answer, err)
				}
			case test.inactive:
				if !errors.Is(err, ErrInactive) || errors.Is(err, ErrUnavailable) || answer != nil {
					t.Fatalf("got %.100s, %v", answer, err)
				}
			default:
				wantUnavailable(t, err, test.want)
				if answer != nil {
					t.Errorf("the answer is %.100s", answer)
				}
			}
			f.answers(say(http.StatusOK, active))
			answer, err = c.Introspect(t.Context(), rawToken)
			if test.pause {
				wantUnavailable(t, err, "not asked again yet", test.want)
				return
			}
			wantActive(t, answer, err)
		})
	}
}

// Token and credentials go to the endpoint and nowhere else, not even within its
// origin: there they would arrive in the logs of whatever is at that path.
func TestRedirectsAreNotFollowed(t *testing.T) {
	for name, status := range map[string]int{"by 302": 302, "by 307, which repeats the body": 307, "by 308": 308} {
		t.Run(name, func(t *testing.T) {
			f, other := newFake(t), newFake(t)
			for _, to := range []string{other.endpoint(), f.URL + "/elsewhere"} {
				f.answers(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/elsewhere" {
						t.Error("followed within the origin")
					}
					http.Redirect(w, r, to, status)
				})
				c, _ := newTestClient(t, f)
				_, err := c.Introspect(t.Context(), rawToken)
				wantUnavailable(t, err, "redirected")
			}
			if asked, _ := other.counts(); asked != 0 {
				t.Error("followed to another origin")
			}
		})
	}
}

func TestEndpointsThatDoNotAnswer(t *testing.T) { // KC-017
	short := func(c *Config) { c.Timeout = 50 * time.Millisecond }
	t.Run("KC-017 slow", func(t *testing.T) {
		f := newFake(t)
		f.answers(hang(t))
		c, _ := newTestClient(t, f, short)
		_, err := c.Introspect(t.Context(), rawToken)
		wantUnavailable(t, err, "no answer in time")
	})
	t.Run("KC-017 slow in the middle", func(t *testing.T) {
		f := newFake(t)
		f.answers(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"active":`)
			w.(http.Flusher).Flush()
			hang(t)(w, r)
		})
		c, _ := newTestClient(t, f, short)
		_, err := c.Introspect(t.Context(), rawToken)
		wantUnavailable(t, err, "no answer in time")
	})
	t.Run("an answer without end", func(t *testing.T) {
		f := newFake(t)
		f.answers(func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := io.WriteString(w, strings.Repeat(" ", 8<<10)); err != nil {
					return // the client has seen enough
				}
			}
		})
		c, _ := newTestClient(t, f, func(c *Config) { c.Timeout = time.Minute })
		_, err := c.Introspect(t.Context(), rawToken)
		wantUnavailable(t, err, "262144 bytes")
	})
	t.Run("KC-017 down", func(t *testing.T) {
		f := newFake(t)
		c, _ := newTestClient(t, f)
		f.Close()
		_, err := c.Introspect(t.Context(), rawToken)
		wantUnavailable(t, err, "refused")
	})
	t.Run("KC-017 inactive", func(t *testing.T) {
		f := newFake(t)
		f.answers(say(http.StatusOK, `{"active":false}`))
		c, _ := newTestClient(t, f)
		if _, err := c.Introspect(t.Context(), rawToken); !errors.Is(err, ErrInactive) {
			t.Errorf("got %v", err)
		}
	})
	for name, answer := range map[string]string{
		"closed at once":             "",
		"closed in the middle":       "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"active\":true}",
		"not HTTP":                   "body-mark\r\n\r\n",
		"HTTP with a strange status": "HTTP/1.1 body-mark OK\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = conn.Read(make([]byte, 4096))
					_, _ = io.WriteString(conn, answer)
					conn.Close()
				}
			}()
			c, _ := newTestClient(t, newFake(t), func(c *Config) { c.Endpoint = "http://" + l.Addr().String() })
			_, err = c.Introspect(t.Context(), rawToken)
			wantUnavailable(t, err)
		})
	}
}

// FuzzAnswer looks for answers that are taken for active, or panic.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{active, `{"active":false}`, `{"active":true,"a":{"b":[1,"ü"]}}`, `{"Active":true}`, ` {"\u0061ctive":true}`, `{`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		isActive, err := readActive(text)
		if err != nil || !isActive {
			return
		}
		if claims := claimsOf(t, text); claims["active"] != true {
			t.Errorf("%q is taken for active", text)
		}
	})
}

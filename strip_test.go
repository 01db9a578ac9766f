package keycloakcacheauth

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func TestStripDeletesEverySpelling(t *testing.T) {
	owned := newOwnedHeaders("X-Org", "X-Plan")
	for _, name := range append([]string{"X-Org", "X-Plan"}, defaultOwned...) {
		for _, spelling := range []string{
			name, strings.ToLower(name), strings.ToUpper(name),
			strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", "."),
			strings.Replace(name, "-", "_", 1), strings.ReplaceAll(name, "-", "~"), strings.ReplaceAll(name, "-", "!"),
			strings.ReplaceAll(name, "-", " "),
		} {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header[spelling] = []string{"forged"} // the map is set directly, as a hostile peer would
			r.Header["X-Other"] = []string{"kept"}
			owned.strip(r)
			if got := slices.Collect(maps.Keys(r.Header)); !slices.Equal(got, []string{"X-Other"}) {
				t.Errorf("sent as %q: the fields left are %q", spelling, got)
			}
		}
	}
}

func TestStripLeavesNeighboursAlone(t *testing.T) {
	owned := newOwnedHeaders()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for _, name := range []string{"X-User-Id2", "X-User", "My-X-User-Id", "Xuserid", "Authorization", "Cookie"} {
		r.Header[name] = []string{"kept"}
	}
	before := len(r.Header)
	owned.strip(r)
	if len(r.Header) != before {
		t.Errorf("fields left: %v", r.Header)
	}
}

// A client names a header in Connection to make the proxy behind us delete it
// after we have set it.
func TestStripTakesOwnedNamesOutOfConnection(t *testing.T) {
	for name, tc := range map[string]struct{ sent, want []string }{
		"nothing of ours":                {[]string{"keep-alive, X-Custom"}, []string{"keep-alive, X-Custom"}},
		"ours alone":                     {[]string{"X-User-Id"}, nil},
		"ours among others":              {[]string{"close, X-Tenant-ID, x-user-id"}, []string{"close"}},
		"an upgrade is kept":             {[]string{"Upgrade, x_user_id"}, []string{"Upgrade"}},
		"ours in a field of its own":     {[]string{"Upgrade", "X-Member-ID"}, []string{"Upgrade"}},
		"an alias":                       {[]string{"X.User.Roles,close"}, []string{"close"}},
		"spaces and empty list elements": {[]string{" , x-user-email ,, close"}, []string{"close"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header["Connection"] = tc.sent
			newOwnedHeaders().strip(r)
			if got := r.Header["Connection"]; !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// withTrailers returns a request whose body ends at once in these trailers,
// and the map that net/http would fill. HTTP/1.1 merges all that arrive into
// it, once any is announced.
func withTrailers(announced []string, arriving map[string]string) (*http.Request, http.Header) {
	all := make(http.Header)
	for _, name := range announced {
		all[name] = nil
	}
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.Trailer = all
	r.Body = &endingBody{end: func() {
		for name, value := range arriving {
			all[name] = []string{value}
		}
	}}
	return r, all
}

// endingBody calls end when it is read or closed for the first time, and then
// ends, or fails if it was closed.
type endingBody struct {
	end    func()
	closed bool
}

func (b *endingBody) Read([]byte) (int, error) {
	if b.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	b.end()
	return 0, io.EOF
}

func (b *endingBody) Close() error {
	b.end()
	b.closed = true
	return nil
}

func TestStripFiltersTrailers(t *testing.T) {
	arriving := map[string]string{"X-Checksum": "abc", "X-User-Id": "forged", "X_user_roles": "admin"}
	for name, announced := range map[string][]string{
		"one of ours announced among others": {"X-Checksum", "X-User-Id"},
		"only ours announced":                {"X-User-Id"},
		"none of ours announced":             {"X-Checksum"},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := withTrailers(announced, arriving)
			newOwnedHeaders().strip(r)
			if _, ok := r.Trailer["X-User-Id"]; ok {
				t.Error("the announced name of one of ours is passed on")
			}
			if _, err := io.ReadAll(r.Body); err != nil {
				t.Fatal(err)
			}
			if len(r.Trailer) != 1 || r.Trailer.Get("X-Checksum") != "abc" {
				t.Errorf("trailers are %v, want only X-Checksum: abc", r.Trailer)
			}
		})
	}
}

// An error route may get a copy of the request that was made before the strip:
// with the map of all trailers, and the body that fills it.
func TestStripOfARequestThatFailsReachesEarlierCopies(t *testing.T) {
	for name, tc := range map[string]struct {
		major  int
		arrive map[string]string
		want   error
	}{
		"HTTP/1.1, where unannounced ones arrive too": {1, map[string]string{"X-User-Id": "forged", "X_user_roles": "admin"}, http.ErrBodyReadAfterClose},
		"HTTP/2, where only announced ones arrive":    {2, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r, all := withTrailers([]string{"X-Checksum", "X-User-Id"}, tc.arrive)
			r.ProtoMajor = tc.major
			earlier := *r
			failure := io.ErrUnexpectedEOF
			if err := newOwnedHeaders().strip(r).abandonOn(httptest.NewRecorder(), failure); err != failure { //nolint:errorlint // the very error: wrapped, Caddy would not know it
				t.Errorf("the error became %v", err)
			}
			if _, err := io.ReadAll(earlier.Body); err != tc.want { //nolint:errorlint // as io.ReadAll returns it
				t.Errorf("reading the earlier copy's body: %v, want %v", err, tc.want)
			}
			if names := slices.Collect(maps.Keys(all)); !slices.Equal(names, []string{"X-Checksum"}) {
				t.Errorf("the earlier copy has the trailers %v, want only X-Checksum", all)
			}
		})
	}
}

func TestStripLeavesTheBodyOfARequestThatSucceedsAlone(t *testing.T) {
	r, _ := withTrailers([]string{"X-Checksum"}, nil)
	if err := newOwnedHeaders().strip(r).abandonOn(httptest.NewRecorder(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r.Body); err != nil {
		t.Error(err)
	}
}

func TestStripOfARequestWithoutTrailersLeavesItsBody(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("body"))
	_ = newOwnedHeaders().strip(r).abandonOn(httptest.NewRecorder(), io.ErrUnexpectedEOF)
	if got, err := io.ReadAll(r.Body); err != nil || string(got) != "body" {
		t.Errorf("the body is %q, %v", got, err)
	}
}

func BenchmarkStrip(b *testing.B) {
	owned := newOwnedHeaders()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for _, name := range []string{"Accept", "User-Agent", "Authorization", "Accept-Encoding", "X-Request-Id"} {
		r.Header.Set(name, "v")
	}
	b.ReportAllocs()
	for b.Loop() {
		owned.strip(r)
	}
}

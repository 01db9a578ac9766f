package main

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// stub is a server that answers every request with what answer returns.
func stub(t *testing.T, answer func(n int64) string) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	var count atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			go func() {
				r := bufio.NewReader(conn)
				for {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					if _, err := conn.Write([]byte(answer(count.Add(1)))); err != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

const hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

// fixed is work of the same request, with one answer.
type fixed want

func (f fixed) next(_ int, out []byte) ([]byte, want) {
	return append(out, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"...), want(f)
}

func dialLoad(t *testing.T, addr string, connections int, w work) *load {
	t.Helper()
	l, err := newLoad(addr, connections, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return l
}

// stalls stands still once, for as long as said, for all connections.
func stalls(at int64, d time.Duration) func(n int64) string {
	var until atomic.Pointer[time.Time]
	return func(n int64) string {
		if n == at {
			end := time.Now().Add(d)
			until.Store(&end)
		}
		if end := until.Load(); end != nil {
			<-time.After(time.Until(*end))
		}
		return hello
	}
}

// A server that stands still for a fifth of the time must show in the 99th percentile of
// what users wait, although only as many requests as there are connections are under
// way then: coordinated omission would hide all the others.
func TestAStalledServerShowsInTheOpenLoopsPercentiles(t *testing.T) {
	const (
		stall    = 200 * time.Millisecond
		duration = time.Second
		rate     = 1000
	)
	open, err := dialLoad(t, stub(t, stalls(300, stall)), 2, fixed{status: 200}).open(t.Context(), duration, rate)
	if err != nil {
		t.Fatal(err)
	}
	if open.Requests != rate || len(open.Latencies) != rate {
		t.Fatalf("%d requests and %d latencies of %d", open.Requests, len(open.Latencies), rate)
	}
	// some 200 of 1000 came while it stood still, and those in the middle waited for half of it
	if p99, p85 := open.Latencies.percentile(99), open.Latencies.percentile(85); p99 < stall*3/4 || p85 < stall/20 {
		t.Errorf("p99 is %s and p85 %s with a stall of %s", p99, p85, stall)
	}
	closed, err := dialLoad(t, stub(t, stalls(300, stall)), 2, fixed{status: 200}).closed(t.Context(), 0, rate)
	if err != nil {
		t.Fatal(err)
	}
	if p99 := closed.Latencies.percentile(99); p99 > stall/2 {
		t.Errorf("the closed loop shows a p99 of %s: then it would do for latencies, too", p99)
	}
}

// What is never answered has waited until the end, and is not left out.
func TestTheOpenLoopCountsWhatIsNeverAnswered(t *testing.T) {
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	addr := stub(t, func(n int64) string {
		if n > 10 {
			<-never
		}
		return hello
	})
	const duration = 50 * time.Millisecond
	result, err := dialLoad(t, addr, 2, fixed{status: 200}).open(t.Context(), duration, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if result.Requests > 20 || len(result.Latencies) != 50 {
		t.Errorf("%d were answered, and %d latencies counted", result.Requests, len(result.Latencies))
	}
	if p50 := result.Latencies.percentile(50); p50 < time.Second {
		t.Errorf("p50 is %s", p50)
	}
}

func TestTheClosedLoopSendsAsManyAsWereAskedFor(t *testing.T) {
	for name, test := range map[string]struct{ connections, most int }{
		"fewer than connections": {4, 3}, "as many as connections": {4, 4}, "more": {4, 101},
	} {
		t.Run(name, func(t *testing.T) {
			var answered atomic.Int64
			addr := stub(t, func(n int64) string {
				answered.Store(n)
				return hello
			})
			result, err := dialLoad(t, addr, test.connections, fixed{status: 200}).closed(t.Context(), 0, test.most)
			if err != nil {
				t.Fatal(err)
			}
			if result.Requests != test.most || answered.Load() != int64(test.most) || len(result.Latencies) != test.most {
				t.Errorf("%d counted and %d answered of %d", result.Requests, answered.Load(), test.most)
			}
		})
	}
}

func TestTheClosedLoopEndsInTime(t *testing.T) {
	l := dialLoad(t, stub(t, func(int64) string { return hello }), 3, fixed{status: 200})
	result, err := l.closed(t.Context(), 30*time.Millisecond, 0)
	if err != nil {
		t.Fatal(err)
	}
	if result.Elapsed < 30*time.Millisecond || result.Elapsed > l.patience || result.Requests < len(l.conns) {
		t.Errorf("%d requests in %s", result.Requests, result.Elapsed)
	}
}

func TestABadAnswerFailsTheRun(t *testing.T) {
	tests := map[string]struct {
		answer string
		want   want
		reason string
	}{
		"another status":      {"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", want{status: 200}, "status 403 instead of 200"},
		"somebody else":       {hello, want{status: 200, body: "alice"}, `the wrong identity: "hello" instead of "alice"`},
		"without length":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", want{status: 200}, "without Content-Length"},
		"more than announced": {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhello", want{status: 200}, "longer than expected"},
		"a length too long":   {"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", want{status: 200}, "longer than expected"},
		"not HTTP":            {"220 mail.example.test ESMTP ready\r\n\r\n", want{status: 200}, "does not begin with a status line"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := dialLoad(t, stub(t, func(int64) string { return test.answer }), 1, fixed(test.want)).closed(t.Context(), 0, 1)
			if err == nil || !strings.Contains(err.Error(), test.reason) {
				t.Errorf("the run ended with %v, want %q", err, test.reason)
			}
		})
	}
}

func TestAResponseMayComeInPieces(t *testing.T) {
	expected := want{status: 200, body: "hello"}
	for n := range len(hello) {
		if complete, err := checkResponse([]byte(hello[:n]), expected); complete || err != nil {
			t.Errorf("%q: %v, %v", hello[:n], complete, err)
		}
	}
	if complete, err := checkResponse([]byte(hello), expected); !complete || err != nil {
		t.Errorf("whole: %v, %v", complete, err)
	}
}

func TestAServerThatSaysNothingFailsTheRun(t *testing.T) {
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	l := dialLoad(t, stub(t, func(int64) string {
		<-never
		return ""
	}), 1, fixed{status: 200})
	l.patience = 10 * time.Millisecond
	if _, err := l.closed(t.Context(), 0, 1); err == nil || !strings.Contains(err.Error(), "no response in") {
		t.Errorf("the run ended with %v", err)
	}
}

// What the generator allocates would be counted against the servers, which wait for it.
func TestTheLoadGeneratorAllocatesNothingForARequest(t *testing.T) {
	people := []person{{id: "8d0c", token: strings.Repeat("t", 1400)}}
	v := &visits{people: people, tenants: tenantNames(3), pick: atRandom(1, 3)}
	out := make([]byte, 0, 4096)
	seq := 0
	if n := testing.AllocsPerRun(100, func() {
		out, _ = v.next(seq, out[:0])
		seq++
	}); n != 0 {
		t.Errorf("making a request: %g allocations", n)
	}
	response := []byte(hello)
	if n := testing.AllocsPerRun(100, func() { _, _ = checkResponse(response, want{status: 200}) }); n != 0 {
		t.Errorf("checking a response: %g allocations", n)
	}
}

package wire_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// patience is how long a client waits for Caddy, on a machine that may be busy.
const patience = 30 * time.Second

// body is what every request that may have one carries.
const body = "body"

// request is what a client sends, exactly.
type request struct {
	method, path string
	fields       []field // trailers among them go behind the body
	announced    []string
}

func (r request) hasTrailers() bool {
	for _, f := range r.fields {
		if f.Trailer {
			return true
		}
	}
	return false
}

// answer is what came back. A status of 0 is a stream that Caddy reset.
type answer struct {
	status int
	body   []byte
}

// client sends a request on a connection of its own.
type client interface {
	send(addr string, r request) (answer, error)
}

func dial(addr string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(patience))
}

// http1Client writes requests line by line.
type http1Client struct{}

func (http1Client) send(addr string, r request) (answer, error) {
	conn, err := dial(addr)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = conn.Close() }()

	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: site.example\r\n", r.method, r.path)
	writeLines(&b, r.fields, false)
	switch {
	case r.hasTrailers():
		b.WriteString("Transfer-Encoding: chunked\r\n")
		if len(r.announced) > 0 {
			fmt.Fprintf(&b, "Trailer: %s\r\n", strings.Join(r.announced, ", "))
		}
		fmt.Fprintf(&b, "\r\n%x\r\n%s\r\n0\r\n", len(body), body)
		writeLines(&b, r.fields, true)
		b.WriteString("\r\n")
	default:
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return answer{}, err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, content}, err
}

func writeLines(b *strings.Builder, fields []field, trailers bool) {
	for _, f := range fields {
		if f.Trailer == trailers {
			fmt.Fprintf(b, "%s: %s\r\n", f.Name, f.Value)
		}
	}
}

// http2Client writes requests frame by frame, with prior knowledge or, if tls
// is set, over TLS.
type http2Client struct{ tls *tls.Config }

func (c http2Client) send(addr string, r request) (answer, error) {
	conn, err := dial(addr)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = conn.Close() }()
	if c.tls != nil {
		secured := tls.Client(conn, c.tls)
		if err := secured.Handshake(); err != nil {
			return answer{}, err
		}
		if got := secured.ConnectionState().NegotiatedProtocol; got != "h2" {
			return answer{}, fmt.Errorf("the connection speaks %q", got)
		}
		conn = secured
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return answer{}, err
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := errors.Join(framer.WriteSettings(), writeFrames(framer, r)); err != nil {
		return answer{}, err
	}
	return readAnswer(framer)
}

func writeFrames(framer *http2.Framer, r request) error {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	write := func(name, value string) {
		_ = encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // a buffer takes everything
	}
	write(":method", r.method)
	write(":scheme", "http")
	write(":authority", "site.example")
	write(":path", r.path)
	for _, f := range r.fields {
		if !f.Trailer {
			write(f.Name, f.Value)
		}
	}
	if len(r.announced) > 0 {
		write("trailer", strings.Join(r.announced, ", "))
	}
	err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	if err != nil {
		return err
	}
	trailers := r.hasTrailers()
	if err := framer.WriteData(1, !trailers, []byte(body)); err != nil || !trailers {
		return err
	}
	block.Reset()
	for _, f := range r.fields {
		if f.Trailer {
			write(f.Name, f.Value)
		}
	}
	return framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true,
	})
}

func readAnswer(framer *http2.Framer) (answer, error) {
	var got answer
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return answer{}, err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if err := framer.WriteSettingsAck(); err != nil {
					return answer{}, err
				}
			}
		case *http2.MetaHeadersFrame:
			if status, err := strconv.Atoi(f.PseudoValue("status")); err == nil {
				got.status = status
			}
			if f.StreamEnded() {
				return got, nil
			}
		case *http2.DataFrame:
			got.body = append(got.body, f.Data()...)
			if f.StreamEnded() {
				return got, nil
			}
		case *http2.RSTStreamFrame:
			if got.status != 0 && f.ErrCode == http2.ErrCodeNo {
				return got, nil // all that is to come has come
			}
			return answer{}, nil
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return answer{}, nil
			}
		}
	}
}

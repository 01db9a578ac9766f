package wire_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// field is a header field or trailer, its name as it stood on the wire.
type field struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	Trailer bool   `json:"trailer,omitempty"`
}

// upstream answers every request with what it received, as a JSON array of
// fields. It returns its address.
func upstream(tb testing.TB, serve func(net.Conn) error) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				defer func() { _ = conn.Close() }()
				_ = serve(conn) // what goes wrong is missed by the client
			}()
		}
	}()
	return listener.Addr().String()
}

func encode(fields []field) []byte {
	text, err := json.Marshal(fields)
	if err != nil {
		panic(err) // strings are always marshalled
	}
	return text
}

// serveHTTP1 answers the requests of one HTTP/1.1 connection.
func serveHTTP1(conn net.Conn) error {
	r := bufio.NewReader(conn)
	for {
		if _, err := readLine(r); err != nil { // the request line
			return err
		}
		fields, err := readFields(r, false)
		if err != nil {
			return err
		}
		trailers, err := readBody(r, fields)
		if err != nil {
			return err
		}
		body := encode(append(fields, trailers...))
		if _, err := fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
			return err
		}
	}
}

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// readFields reads lines up to an empty one.
func readFields(r *bufio.Reader, trailer bool) ([]field, error) {
	var fields []field
	for {
		line, err := readLine(r)
		if err != nil || line == "" {
			return fields, err
		}
		name, value, found := strings.Cut(line, ":")
		if !found {
			return nil, fmt.Errorf("not a field: %q", line)
		}
		fields = append(fields, field{Name: name, Value: strings.TrimSpace(value), Trailer: trailer})
	}
}

// readBody reads a body to its end and returns the trailers behind it.
func readBody(r *bufio.Reader, fields []field) ([]field, error) {
	for _, f := range fields {
		switch {
		case strings.EqualFold(f.Name, "Content-Length"):
			length, err := strconv.ParseInt(f.Value, 10, 64)
			if err != nil {
				return nil, err
			}
			_, err = io.CopyN(io.Discard, r, length)
			return nil, err
		case strings.EqualFold(f.Name, "Transfer-Encoding"):
			return readChunks(r)
		}
	}
	return nil, nil
}

func readChunks(r *bufio.Reader) ([]field, error) {
	for {
		line, err := readLine(r)
		if err != nil {
			return nil, err
		}
		size, err := strconv.ParseInt(line, 16, 64)
		if err != nil {
			return nil, err
		}
		if size == 0 {
			return readFields(r, true)
		}
		if _, err := io.CopyN(io.Discard, r, size+2); err != nil { // the chunk and its CRLF
			return nil, err
		}
	}
}

// serveHTTP2 answers the requests of one HTTP/2 connection with prior
// knowledge (RFC 9113 section 3.3).
func serveHTTP2(conn net.Conn) error {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil {
		return err
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := framer.WriteSettings(); err != nil {
		return err
	}
	streams := make(map[uint32][]field)
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		id, ended := frame.Header().StreamID, false
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = framer.WritePing(true, f.Data)
			}
		case *http2.MetaHeadersFrame:
			_, trailer := streams[id]
			for _, hf := range f.Fields {
				streams[id] = append(streams[id], field{Name: hf.Name, Value: hf.Value, Trailer: trailer})
			}
			ended = f.StreamEnded()
		case *http2.DataFrame:
			if n := len(f.Data()); n > 0 {
				err = framer.WriteWindowUpdate(0, uint32(n))
			}
			ended = f.StreamEnded()
		}
		if err != nil {
			return err
		}
		if ended {
			if err := respondHTTP2(framer, id, encode(streams[id])); err != nil {
				return err
			}
			delete(streams, id)
		}
	}
}

func respondHTTP2(framer *http2.Framer, stream uint32, body []byte) error {
	var block bytes.Buffer
	if err := hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"}); err != nil {
		return err
	}
	err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true})
	if err != nil {
		return err
	}
	return framer.WriteData(stream, true, body)
}

// Record types of FastCGI 1.0, section 8.
const (
	fcgiEndRequest = 3
	fcgiParams     = 4
	fcgiStdin      = 5
	fcgiStdout     = 6
)

// serveFastCGI answers the one request of a FastCGI connection. What it
// received are all its parameters. net/http/fcgi would turn them back into header fields.
func serveFastCGI(conn net.Conn) error {
	var params []byte
	for {
		var header [8]byte // version, type, request id (2), length (2), padding, reserved
		if _, err := io.ReadFull(conn, header[:]); err != nil {
			return err
		}
		length := int(header[4])<<8 | int(header[5])
		content := make([]byte, length+int(header[6]))
		if _, err := io.ReadFull(conn, content); err != nil {
			return err
		}
		content = content[:length]
		switch {
		case header[1] == fcgiParams:
			params = append(params, content...)
		case header[1] == fcgiStdin && length == 0:
			fields, err := httpParams(params)
			if err != nil {
				return err
			}
			output := append([]byte("Status: 200 OK\r\nContent-Type: application/json\r\n\r\n"), encode(fields)...)
			answer := append(fcgiRecord(fcgiStdout, output), fcgiRecord(fcgiStdout, nil)...)
			_, err = conn.Write(append(answer, fcgiRecord(fcgiEndRequest, make([]byte, 8))...))
			return err
		}
	}
}

func fcgiRecord(kind byte, content []byte) []byte {
	return append([]byte{1, kind, 0, 1, byte(len(content) >> 8), byte(len(content)), 0, 0}, content...)
}

// httpParams decodes name-value pairs (FastCGI 1.0, section 3.4). Those made of
// header fields have the fields' names, the others, which no name of a client's
// may become, an exclamation mark before theirs.
func httpParams(b []byte) ([]field, error) {
	errShort := errors.New("parameters cut short")
	size := func() (int, bool) {
		switch {
		case len(b) >= 1 && b[0] < 0x80:
			n := int(b[0])
			b = b[1:]
			return n, true
		case len(b) >= 4:
			n := int(b[0]&0x7f)<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
			b = b[4:]
			return n, true
		default:
			return 0, false
		}
	}
	fields := []field{}
	for len(b) > 0 {
		nameSize, ok1 := size()
		valueSize, ok2 := size()
		if !ok1 || !ok2 || len(b) < nameSize+valueSize {
			return nil, errShort
		}
		name, isHeader := strings.CutPrefix(string(b[:nameSize]), "HTTP_")
		if !isHeader {
			name = "!" + name
		}
		fields = append(fields, field{Name: name, Value: string(b[nameSize : nameSize+valueSize])})
		b = b[nameSize+valueSize:]
	}
	return fields, nil
}

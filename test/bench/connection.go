package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"syscall"
	"time"
)

// connection is one keep-alive connection to the measured server, with at most one
// request under way. It never waits: the load generator asks all of its connections
// in turn, which costs it less than a goroutine for each, and lets it send on time.
type connection struct {
	conn net.Conn
	raw  syscall.RawConn

	out  []byte // the request under way
	in   []byte // room for its response
	have int    // bytes of the response that have come
	busy bool
	due  time.Duration // when the request was to be sent, since the run began
	want want

	// reading and writing are the functions that raw takes, made once: as closures
	// they would be an allocation for each try.
	reading, writing func(fd uintptr) bool
	n                int
	err              error
}

// want is what a good response is.
type want struct {
	status int
	body   string // "" for any
}

// maxResponse bounds a response, in bytes.
const maxResponse = 16 << 10

func dial(addr string) (*connection, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c := &connection{conn: conn, raw: raw, in: make([]byte, maxResponse)}
	c.reading = func(fd uintptr) bool {
		c.n, c.err = syscall.Read(int(fd), c.in[c.have:])
		return true // do not wait
	}
	c.writing = func(fd uintptr) bool {
		c.n, c.err = syscall.Write(int(fd), c.out)
		return true
	}
	return c, nil
}

// send writes c.out, which fits into an idle connection's buffers.
func (c *connection) send() error {
	c.busy, c.have = true, 0
	for {
		if err := c.raw.Write(c.writing); err != nil {
			return err
		}
		switch {
		case mustWait(c.err):
			continue
		case c.err != nil:
			return fmt.Errorf("sending: %w", c.err)
		case c.n != len(c.out):
			return fmt.Errorf("sending: only %d of %d bytes were taken", c.n, len(c.out))
		}
		return nil
	}
}

// poll reads what has come, and tells whether the response is complete. It returns an
// error if that is not what was wanted.
func (c *connection) poll() (bool, error) {
	if err := c.raw.Read(c.reading); err != nil {
		return false, err
	}
	switch {
	case mustWait(c.err):
		return false, nil
	case c.err != nil:
		return false, fmt.Errorf("receiving: %w", c.err)
	case c.n == 0:
		return false, fmt.Errorf("receiving: %w", io.ErrUnexpectedEOF)
	}
	c.have += c.n
	complete, err := checkResponse(c.in[:c.have], c.want)
	if complete {
		c.busy = false
	}
	return complete, err
}

func mustWait(err error) bool { return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) }

var (
	lineEnd       = []byte("\r\n")
	headEnd       = []byte("\r\n\r\n")
	lengthHeader  = []byte("\r\nContent-Length: ")
	statusLine    = []byte("HTTP/1.1 ")
	errNoLength   = errors.New("a response without Content-Length")
	errTooLong    = errors.New("a response that is longer than expected")
	errStatusLine = errors.New("a response that does not begin with a status line of HTTP/1.1")
)

// checkResponse tells whether raw is a complete response, and what is wrong with it.
func checkResponse(raw []byte, expected want) (bool, error) {
	end := bytes.Index(raw, headEnd)
	if end < 0 {
		if len(raw) == maxResponse {
			return false, errTooLong
		}
		return false, nil
	}
	head, body := raw[:end+2], raw[end+len(headEnd):]
	if len(head) < len(statusLine)+3 || !bytes.HasPrefix(head, statusLine) {
		return false, errStatusLine
	}
	length, err := contentLength(head)
	switch {
	case err != nil:
		return false, err
	case len(body) < length:
		if end+len(headEnd)+length > maxResponse {
			return false, errTooLong
		}
		return false, nil
	case len(body) > length:
		return false, errTooLong
	}
	if status, err := strconv.Atoi(string(head[len(statusLine) : len(statusLine)+3])); err != nil || status != expected.status {
		return true, fmt.Errorf("status %d instead of %d", status, expected.status)
	}
	if expected.body != "" && string(body) != expected.body {
		return true, fmt.Errorf("the wrong identity: %q instead of %q", body, expected.body)
	}
	return true, nil
}

func contentLength(head []byte) (int, error) {
	_, rest, found := bytes.Cut(head, lengthHeader)
	digits, _, _ := bytes.Cut(rest, lineEnd)
	if !found || len(digits) == 0 {
		return 0, errNoLength
	}
	n := 0
	for _, digit := range digits {
		if digit < '0' || digit > '9' || n > maxResponse {
			return 0, errNoLength
		}
		n = 10*n + int(digit-'0')
	}
	return n, nil
}

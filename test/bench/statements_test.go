package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"testing"
)

// message is what a frontend sends, with its type if it has one.
func message(kind, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte(kind), uint32(len(body)+4)), body...)
}

func TestStatementsAreCountedOnTheWire(t *testing.T) {
	session := bytes.Join([][]byte{
		message("", "\x00\x03\x00\x00user\x00E\x00\x00"), // begins the session, and has no type
		message("P", "s1\x00select 1\x00\x00\x00"),
		message("E", "\x00\x00\x00\x00\x00"),
		message("E", "\x00\x00\x00\x00\x00"),
		message("S", ""),
		message("Q", "-- ping\x00"),
		message("Q", ";\x00"),
		message("Q", "select 2\x00"),
		message("X", ""),
	}, nil)
	var c statementCounter
	var forwarded bytes.Buffer
	_ = c.forward(&forwarded, bufio.NewReader(bytes.NewReader(session))) // ends with the session
	if want := (statementCount{executed: 3, prepared: 1, pings: 2}); c.counted() != want {
		t.Errorf("counted %+v, want %+v", c.counted(), want)
	}
	if !bytes.Equal(forwarded.Bytes(), session) {
		t.Error("what was handed on is not what came")
	}
}

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// statementCounter stands between a client and PostgreSQL and counts what the client
// sends, whatever library it is: messages of the frontend, "Message Formats" in
// PostgreSQL's documentation.
type statementCounter struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	count statementCount
	conns map[net.Conn]struct{} // nil once it is closed
	group sync.WaitGroup
}

// statementCount is what was sent.
type statementCount struct {
	executed int // statements with something in them
	prepared int
	pings    int // statements that are nothing but a comment, or empty
}

func newStatementCounter(ctx context.Context, target string) (*statementCounter, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &statementCounter{listener: listener, target: target, conns: make(map[net.Conn]struct{})}
	c.group.Go(c.accept)
	return c, nil
}

func (c *statementCounter) addr() string { return c.listener.Addr().String() }

func (c *statementCounter) counted() statementCount {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// close cuts all connections.
func (c *statementCounter) close() {
	_ = c.listener.Close()
	c.mu.Lock()
	for conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
	c.mu.Unlock()
	c.group.Wait()
}

func (c *statementCounter) accept() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", c.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		if !c.keep(client, server) {
			return
		}
		c.group.Go(func() {
			_, _ = io.Copy(client, server)
			_ = client.Close()
		})
		c.group.Go(func() {
			_ = c.forward(server, bufio.NewReader(client))
			_ = server.Close()
		})
	}
}

// keep notes connections, or closes them if it is too late.
func (c *statementCounter) keep(conns ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		if c.conns == nil {
			_ = conn.Close()
			continue
		}
		c.conns[conn] = struct{}{}
	}
	return c.conns != nil
}

// maxMessage bounds a message of the client, in bytes.
const maxMessage = 1 << 20

// forward hands on messages until one side ends. The first one, which begins the
// session, has no type.
func (c *statementCounter) forward(server io.Writer, client *bufio.Reader) error {
	typed := false
	for {
		head := make([]byte, 4, 5)
		if typed {
			head = head[:5]
		}
		if _, err := io.ReadFull(client, head); err != nil {
			return err
		}
		size := int(binary.BigEndian.Uint32(head[len(head)-4:])) - 4
		if size < 0 || size > maxMessage {
			return fmt.Errorf("a message of %d bytes", size)
		}
		message := make([]byte, len(head)+size)
		copy(message, head)
		if _, err := io.ReadFull(client, message[len(head):]); err != nil {
			return err
		}
		if typed {
			c.note(message[0], message[len(head):])
		}
		typed = true
		if _, err := server.Write(message); err != nil {
			return err
		}
	}
}

func (c *statementCounter) note(kind byte, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch kind {
	case 'P': // Parse
		c.count.prepared++
	case 'E': // Execute
		c.count.executed++
	case 'Q': // Query
		text := strings.Trim(string(body), "\x00; \n")
		if text == "" || strings.HasPrefix(text, "--") {
			c.count.pings++
		} else {
			c.count.executed++
		}
	}
}

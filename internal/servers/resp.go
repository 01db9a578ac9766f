package servers

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// redisError is an error reply, such as "NOAUTH Authentication required."
type redisError string

func (e redisError) Error() string { return string(e) }

// redisExchange writes one command in the Redis protocol (RESP2) and reads its
// reply as text: arrays are their elements joined by newlines, nil is "".
func redisExchange(w io.Writer, r *bufio.Reader, words ...string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return "", err
	}
	return redisReply(r)
}

func redisReply(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	kind, rest := line[0], strings.TrimSpace(line[1:])
	switch kind {
	case '+', ':':
		return rest, nil
	case '-':
		return "", redisError(rest)
	}
	n, err := strconv.Atoi(rest)
	if err != nil {
		return "", fmt.Errorf("reading a redis reply: %w", err)
	}
	if n < 0 {
		return "", nil
	}
	if kind == '$' {
		data := make([]byte, n+len("\r\n"))
		_, err := io.ReadFull(r, data)
		return string(data[:n]), err
	}
	elements := make([]string, n)
	for i := range elements {
		if elements[i], err = redisReply(r); err != nil {
			return "", err
		}
	}
	return strings.Join(elements, "\n"), nil
}

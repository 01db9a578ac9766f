package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// expectation tells what is wrong with an answer.
type expectation func(answer) error

// errCheck says that there were wrong answers.
var errCheck = errors.New("not every request was answered as expected")

// checker sends the requests as the printed lines would.
type checker struct {
	client   *http.Client
	tokenURL string
	kept     string // the token that a request kept
}

// check sends all requests and writes a line for each.
func (d *demo) check(ctx context.Context, w io.Writer) error {
	d.printParts(w)
	c := &checker{client: &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}, tokenURL: d.realm.tokenURL}
	defer c.client.CloseIdleConnections()

	list := d.requests()
	failed := 0
	for _, r := range list {
		got, err := c.try(ctx, r)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		verdict := "ok  "
		if err != nil {
			verdict = "FAIL"
			failed++
		}
		fmt.Fprintf(w, "%s  expected %d, got %3d  %s\n", verdict, r.status, got.status, r.title)
		if err != nil {
			fmt.Fprintf(w, "      %v\n      %s\n", err, r.curl())
		}
	}
	fmt.Fprintf(w, "\n%d of %d requests were answered as expected.\n", len(list)-failed, len(list))
	if failed > 0 {
		return errCheck
	}
	return nil
}

// try sends a request until the answer is right or its time is over.
func (c *checker) try(ctx context.Context, r request) (answer, error) {
	patience, cancel := context.WithTimeout(ctx, r.within)
	defer cancel()
	for {
		got, err := c.send(ctx, r)
		if err == nil {
			err = r.judge(got)
		}
		if err == nil {
			return got, nil
		}
		select {
		case <-patience.Done():
			return got, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// judge tells what is wrong with an answer.
func (r request) judge(got answer) error {
	if got.status != r.status {
		return fmt.Errorf("the answer was: %s", bytes.TrimSpace(got.body))
	}
	for _, expect := range r.also {
		if err := expect(got); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) send(ctx context.Context, r request) (answer, error) {
	if r.keep != "" {
		kept, err := c.token(ctx, r.keep)
		if err != nil {
			return answer{}, err
		}
		c.kept = kept
	}
	method := http.MethodGet
	if r.post {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+r.url, nil)
	if err != nil {
		return answer{}, err
	}
	for _, line := range r.headers() {
		name, value, _ := strings.Cut(line, ": ")
		req.Header[name] = []string{value} // spelt as it is
	}
	credential := c.kept
	if !r.token.kept {
		credential = ""
		if r.token.user != "" {
			if credential, err = c.token(ctx, r.token.user); err != nil {
				return answer{}, err
			}
		}
	}
	if r.token.changed {
		credential += "AA"
	}
	if credential != "" {
		req.Header.Set("Authorization", "Bearer "+credential)
	}
	return c.do(req)
}

// token logs a user in with the password grant (RFC 6749 section 4.3).
func (c *checker) token(ctx context.Context, user string) (string, error) {
	form := url.Values{"grant_type": {"password"}, "client_id": {clientID}, "username": {user}, "password": {user}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.tokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	got, err := c.do(req)
	if err != nil {
		return "", err
	}
	var tokens struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(got.body, &tokens); err != nil || tokens.AccessToken == "" {
		return "", fmt.Errorf("%s got no token: status %d", user, got.status)
	}
	return tokens.AccessToken, nil
}

func (c *checker) do(req *http.Request) (answer, error) {
	resp, err := c.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	return answer{resp.StatusCode, resp.Header, body}, err
}

// cameFrom expects the member to have been found there.
func cameFrom(source string) expectation {
	return func(got answer) error {
		if found := got.header.Get(memberHeader); !strings.HasPrefix(found, source+", ") {
			return fmt.Errorf("%s is %q, not from %s", memberHeader, found, source)
		}
		return nil
	}
}

// challenges expects exactly that challenge.
func challenges(challenge string) expectation {
	return func(got answer) error {
		if found := got.header.Values("Www-Authenticate"); len(found) != 1 || found[0] != challenge {
			return fmt.Errorf("the challenge is %q, not %q", found, challenge)
		}
		return nil
	}
}

// mentions expects the body to hold a text.
func mentions(text string) expectation { return sees(text, true) }

// sees expects the body to hold a text, or not to.
func sees(text string, present bool) expectation {
	return func(got answer) error {
		if bytes.Contains(got.body, []byte(text)) != present {
			return fmt.Errorf("%q in the answer: %t, expected %t", text, !present, present)
		}
		return nil
	}
}

// isUser expects the application to have seen that user in that tenant.
func isUser(id, tenant string) expectation {
	return func(got answer) error {
		var seen received
		if err := json.Unmarshal(got.body, &seen); err != nil {
			return fmt.Errorf("the application's answer: %w", err)
		}
		if seen.Identity["X-User-Id"] != id || seen.Identity["X-Tenant-Id"] != tenant || seen.Identity["X-Auth-Status"] != "member" {
			return fmt.Errorf("the application saw %v", seen.Identity)
		}
		return nil
	}
}

// isNobody expects the application to have seen no identity header at all.
func isNobody() expectation {
	return func(got answer) error {
		var seen received
		if err := json.Unmarshal(got.body, &seen); err != nil {
			return fmt.Errorf("the application's answer: %w", err)
		}
		if len(seen.Identity) > 0 {
			return fmt.Errorf("the application saw %v", seen.Identity)
		}
		return nil
	}
}

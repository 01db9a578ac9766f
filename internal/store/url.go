package store

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// target is where a URL leads. These are known:
//
//	redis://[user:password@]host[:6379][/db]
//	unix://[user:password@]/path[?db=0]
//	redis+sentinel://[user:password@]host[:26379],…/master name[/db][?sentinel_username=…&sentinel_password=…]
//	redis+cluster://[user:password@]host[:6379],…
//
// and with rediss for redis the same over TLS. User and password are for the
// servers that have the data.
type target struct {
	kind      targetKind
	secure    bool
	addresses []string // host:port each, or the path of a socket
	database  int

	user, password                 string
	sentinelUser, sentinelPassword string
	master                         string // what the sentinels call it
}

type targetKind uint8

const (
	standalone targetKind = iota
	socket
	sentinel
	cluster
)

// memoryURL is that of a store without a shared level.
const memoryURL = "memory://"

const (
	redisPort    = "6379"
	sentinelPort = "26379"
)

// Errors say nothing of the URL, which holds a password.
var (
	errURL      = errors.New("store: the URL is malformed; are special characters of its password percent-encoded?")
	errScheme   = errors.New("the URL's scheme is not known")
	errDatabase = errors.New("store: the URL's database is not a number: redis://host:6379/0")
	errQuery    = errors.New("store: the URL has query parameters; " +
		"only db of a unix:// URL is known, and with Sentinel the two for its credentials")
)

// CheckURL tells what is wrong with the URL of a store, without quoting it.
func CheckURL(text string) error {
	if text == "" || text == memoryURL {
		return nil
	}
	_, err := parseURL(text)
	return err
}

// SafeName returns where a URL leads, without credentials: "memory", the hosts
// and the database, or the path of the socket. It is "invalid" for a URL that
// [CheckURL] refuses.
func SafeName(text string) string {
	if text == "" || text == memoryURL {
		return "memory"
	}
	t, err := parseURL(text)
	if err != nil {
		return "invalid"
	}
	name := strings.Join(t.addresses, ",")
	switch t.kind {
	case sentinel:
		return name + "/" + t.master + "/" + strconv.Itoa(t.database)
	case cluster:
		return name
	default:
		return name + "/" + strconv.Itoa(t.database)
	}
}

// parseURL knows no query parameters but those above: time-outs and the like
// are ours to set, and verification of certificates is not to be switched off in
// passing.
func parseURL(text string) (*target, error) {
	first, others := splitHosts(text)
	u, err := url.Parse(first)
	if err != nil {
		return nil, errURL
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil || u.Fragment != "" {
		return nil, errURL
	}
	t := &target{user: u.User.Username()}
	t.password, _ = u.User.Password()
	switch scheme, kind, _ := strings.Cut(u.Scheme, "+"); {
	case u.Scheme == "unix":
		t.kind = socket
	case scheme != "redis" && scheme != "rediss", u.Opaque != "":
		return nil, unknownScheme()
	default:
		t.secure = scheme == "rediss"
		switch {
		case u.Scheme == scheme:
		case kind == "sentinel":
			t.kind = sentinel
		case kind == "cluster":
			t.kind = cluster
		default:
			return nil, unknownScheme()
		}
	}
	if err := t.parseHosts(u, others); err != nil {
		return nil, err
	}
	if err := t.parsePath(u.Path, query); err != nil {
		return nil, err
	}
	if len(query) > 0 {
		return nil, errQuery
	}
	return t, nil
}

func unknownScheme() error {
	return fmt.Errorf("store: %w: use memory://, redis://, unix://, redis+sentinel:// or redis+cluster://, "+
		"and rediss instead of redis for TLS", errScheme)
}

// splitHosts returns the URL with the first of its hosts, and the others. The
// url package refuses more than one with ports.
func splitHosts(text string) (first string, others []string) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return text, nil
	}
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	userinfo, hosts := "", authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		userinfo, hosts = authority[:i+1], authority[i+1:]
	}
	list := strings.Split(hosts, ",")
	return scheme + "://" + userinfo + list[0] + tail, list[1:]
}

func (t *target) parseHosts(u *url.URL, others []string) error {
	if t.kind == socket {
		if u.Host != "" || u.Path == "" || len(others) > 0 {
			return errors.New("store: a unix:// URL needs the absolute path of a socket: unix:///run/redis.sock")
		}
		t.addresses = []string{u.Path}
		return nil
	}
	if len(others) > 0 && t.kind == standalone {
		return errors.New("store: the URL names several hosts: use redis+sentinel:// or redis+cluster://")
	}
	port := redisPort
	if t.kind == sentinel {
		port = sentinelPort
	}
	hosts := []*url.URL{u}
	for _, other := range others {
		host, err := url.Parse("redis://" + other)
		if err != nil || host.User != nil || host.Path != "" {
			return errURL
		}
		hosts = append(hosts, host)
	}
	for _, host := range hosts {
		if host.Hostname() == "" {
			return errors.New("store: the URL names no host, or an empty one")
		}
		own := port
		if host.Port() != "" {
			own = host.Port()
		}
		t.addresses = append(t.addresses, net.JoinHostPort(host.Hostname(), own))
	}
	return nil
}

// parsePath reads what the kinds have in their paths and queries, and takes out
// of the query what it knows.
func (t *target) parsePath(path string, query url.Values) error {
	database := strings.TrimPrefix(path, "/")
	switch t.kind {
	case socket:
		database = ""
		if len(query["db"]) == 1 {
			database = query.Get("db")
			delete(query, "db")
		}
	case sentinel:
		t.master, database, _ = strings.Cut(database, "/")
		if t.master == "" {
			return errors.New("store: the URL names no master: redis+sentinel://host:26379/mymaster")
		}
		if len(query["sentinel_username"]) <= 1 && len(query["sentinel_password"]) <= 1 {
			t.sentinelUser, t.sentinelPassword = query.Get("sentinel_username"), query.Get("sentinel_password")
			delete(query, "sentinel_username")
			delete(query, "sentinel_password")
		}
	case standalone:
	case cluster:
		if database != "" && database != "0" {
			return errors.New("store: a cluster has no databases: redis+cluster://host:6379")
		}
	}
	if database == "" {
		return nil
	}
	number, err := strconv.ParseUint(database, 10, 31)
	if err != nil {
		return errDatabase
	}
	t.database = int(number)
	return nil
}

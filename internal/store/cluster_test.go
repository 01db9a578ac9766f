package store

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const clusterSlots = 16384

// redisCluster is three servers that share the slots.
type redisCluster struct {
	servers []*redisServer
	clients []*redis.Client
	ids     []string
}

func startCluster(t *testing.T) *redisCluster {
	t.Helper()
	c := &redisCluster{}
	for range 3 {
		// The bus has a port of its own: by default the server's and 10000, which
		// may be more than there are.
		s := startRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000",
			"--cluster-port", strconv.Itoa(freePort(t)), "--cluster-require-full-coverage", "no",
			"--dir", t.TempDir()) // the same after a restart: it has who belongs to the cluster
		c.servers = append(c.servers, s)
		c.clients = append(c.clients, s.client())
	}
	ctx := t.Context()
	for i, client := range c.clients {
		c.ids = append(c.ids, client.ClusterMyID(ctx).Val())
		if err := client.ClusterAddSlotsRange(ctx, clusterSlots*i/3, clusterSlots*(i+1)/3-1).Err(); err != nil {
			t.Fatal(err)
		}
		if err := client.Do(ctx, "cluster", "set-config-epoch", i+1).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, server := range c.servers[1:] {
		bus := ""
		for i, arg := range server.args {
			if arg == "--cluster-port" {
				bus = server.args[i+1]
			}
		}
		if err := c.clients[0].Do(ctx, "cluster", "meet", "127.0.0.1", server.port, bus).Err(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the cluster is one", func() bool {
		for _, client := range c.clients {
			info := client.ClusterInfo(ctx).Val()
			if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:3") ||
				!strings.Contains(info, "cluster_slots_assigned:16384") {
				return false
			}
		}
		return true
	})
	return c
}

func (c *redisCluster) url() string {
	return "redis+cluster://" + c.servers[0].address() + "," + c.servers[1].address()
}

// move takes a slot from one server to the next, with all that is in it, and
// calls between while it is on its way.
func (c *redisCluster) move(t *testing.T, key string, between func()) {
	t.Helper()
	ctx := t.Context()
	slot := c.clients[0].ClusterKeySlot(ctx, key).Val()
	from := int(slot) * 3 / clusterSlots
	to := (from + 1) % 3
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.clients[to].Do(ctx, "cluster", "setslot", slot, "importing", c.ids[from]).Err())
	must(c.clients[from].Do(ctx, "cluster", "setslot", slot, "migrating", c.ids[to]).Err())
	between()
	for _, k := range c.clients[from].ClusterGetKeysInSlot(ctx, int(slot), 100).Val() {
		must(c.clients[from].Migrate(ctx, "127.0.0.1", strconv.Itoa(c.servers[to].port), k, 0, 5*time.Second).Err())
	}
	between()
	for _, i := range []int{to, from, 3 - from - to} {
		must(c.clients[i].Do(ctx, "cluster", "setslot", slot, "node", c.ids[to]).Err())
	}
}

// shares tells whether what one node stores the other has from Redis, soon.
func shares(t *testing.T, what string, here, there *Store) {
	t.Helper()
	m, want := alice()
	i := 0
	eventually(t, what, func() bool {
		i++
		key := fmt.Sprint(what, i) // another slot each time
		here.Begin(key, want, nil).Put(t.Context(), m, time.Minute, 0)
		_, level, _ := there.Begin(key, want, nil).Get(t.Context())
		return level == Redis
	})
}

// flushReaches makes sure that a flush of one node wins on the other.
func flushReaches(t *testing.T, what string, here, there *Store) {
	t.Helper()
	m, want := alice()
	const key = "flushed"
	there.Begin(key, want, nil).Put(t.Context(), m, time.Minute, 0)
	if _, result := there.Memory(key, want); result != Hit {
		t.Fatalf("%s: memory: %s", what, result)
	}
	eventually(t, what+": the flush is taken", func() bool {
		_, err := here.Flush(t.Context(), Scope{Tenant: m.Tenant}, nil)
		return err == nil
	})
	if entry, _, _ := here.Begin(key, want, nil).Get(t.Context()); entry != nil {
		t.Errorf("%s: the node that flushed serves her", what)
	}
	eventually(t, what+": the other node follows", func() bool {
		_, result := there.Memory(key, want)
		return result != Hit
	})
	if entry, _, _ := there.Begin(key, want, nil).Get(t.Context()); entry != nil {
		t.Errorf("%s: the other node serves her from Redis", what)
	}
}

func TestClusterOfThree(t *testing.T) {
	c := startCluster(t)
	cfg := Config{URL: c.url(), Timeout: time.Second, Secrets: []string{testSecret}}
	here, there := newTestStore(t, cfg), newTestStore(t, cfg)
	eventually(t, "both follow the log", func() bool { return followed(here) && followed(there) })

	t.Run("RD-009 entries and flushes", func(t *testing.T) {
		for i := range 20 { // keys of all servers
			shares(t, fmt.Sprint("entry ", i), here, there)
		}
		flushReaches(t, "cluster", here, there)
		for i, client := range c.clients {
			if n := client.DBSize(t.Context()).Val(); n == 0 {
				t.Errorf("server %d has nothing", i)
			}
		}
		if first, err := here.Claim(t.Context(), "owner", "id", time.Minute, nil); !first || err != nil {
			t.Errorf("claim: %t, %v", first, err)
		}
		if first, err := there.Claim(t.Context(), "owner", "id", time.Minute, nil); first || err != nil {
			t.Errorf("second claim: %t, %v", first, err)
		}
	})
	t.Run("the log's slot is moved", func(t *testing.T) {
		generation := here.Stats().Log.Generation
		c.move(t, logKey(DefaultPrefix), func() { flushReaches(t, "on its way", here, there) })
		flushReaches(t, "moved", there, here)
		shares(t, "moved", there, here)
		if now := here.Stats().Log.Generation; now != generation {
			t.Error("nothing was lost, and a new generation began")
		}
	})
	t.Run("RD-008 a shard is down", func(t *testing.T) {
		slot := c.clients[0].ClusterKeySlot(t.Context(), logKey(DefaultPrefix)).Val()
		keeper := (int(slot)*3/clusterSlots + 1) % 3 // who has the log now
		dead := (keeper + 1) % 3
		shardOf := func(key string) int {
			return int(c.clients[keeper].ClusterKeySlot(t.Context(), key).Val()) * 3 / clusterSlots
		}
		w := &witness{}
		m, want := alice()
		var living []string // keys of both shards that stay, and that both nodes know
		for i := 0; len(living) < 20; i++ {
			if key := fmt.Sprint("living ", i); shardOf(key) != dead {
				here.Begin(key, want, nil).Put(t.Context(), m, time.Hour, 0)
				living = append(living, key)
			}
		}
		read := func(s *Store, key string) Result {
			_, result := s.redis.read(t.Context(), s.Begin(key, want, w))
			return result
		}
		for _, key := range living {
			eventually(t, "it is there", func() bool { return read(there, key) == Hit })
		}
		c.servers[dead].kill()
		skipped := 0
		for i := range 300 {
			for _, node := range []*Store{here, there} {
				start := time.Now()
				l := node.Begin(fmt.Sprint("down ", i), want, w)
				if shardOf(l.key) == dead && read(node, l.key) == Skipped {
					skipped++
				}
				l.Put(t.Context(), m, time.Minute, 0)
				if took := time.Since(start); took > 3*time.Second {
					t.Errorf("a look-up took %v", took)
				}
				if result := read(node, living[i%len(living)]); result != Hit {
					t.Fatalf("round %d: an entry of a shard that is up: %s", i, result)
				}
			}
		}
		if skipped == 0 {
			t.Error("the dead shard was asked all the time")
		}
		if here.Stats().Redis != Partial || there.Stats().Redis != Partial || !slices.Contains(w.states, "partial") {
			t.Errorf("the state is %v, and %v", here.Stats().Redis, there.Stats().Redis)
		}
		flushReaches(t, "with one down", here, there)
		c.servers[dead].start()
		eventually(t, "it is back in the cluster", func() bool {
			return strings.Contains(c.clients[dead].ClusterInfo(t.Context()).Val(), "cluster_state:ok")
		})
		eventually(t, "all are up again", func() bool {
			for i := range 20 {
				here.Begin(fmt.Sprint("again ", i), want, w).Put(t.Context(), m, time.Minute, 0)
			}
			return here.Stats().Redis == Up && there.Stats().Redis == Up
		})
	})
}

// redisSentinels is a primary, a replica and three sentinels.
type redisSentinels struct {
	primary, replica *redisServer
	sentinels        []*redisServer
}

const sentinelMaster = "members"

func startSentinels(t *testing.T) *redisSentinels {
	t.Helper()
	s := &redisSentinels{primary: startRedis(t, "--repl-diskless-sync-delay", "0")}
	s.replica = startRedis(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(s.primary.port))
	for range 3 {
		s.sentinels = append(s.sentinels, startSentinel(t, s.primary.port))
	}
	replica := s.replica.client()
	eventually(t, "the replica follows", func() bool {
		return strings.Contains(replica.Info(t.Context(), "replication").Val(), "master_link_status:up")
	})
	eventually(t, "the sentinels know all", func() bool {
		for _, server := range s.sentinels {
			client := redis.NewSentinelClient(&redis.Options{Addr: server.address()})
			info, err := client.Master(t.Context(), sentinelMaster).Result()
			_ = client.Close()
			if err != nil || info["num-other-sentinels"] != "2" || info["num-slaves"] != "1" {
				return false
			}
		}
		return true
	})
	return s
}

func startSentinel(t *testing.T, primary int) *redisServer {
	t.Helper()
	s := &redisServer{t: t, port: freePort(t)}
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	lines := fmt.Sprintf("port %d\nbind 127.0.0.1\nsentinel monitor %s 127.0.0.1 %d 2\n"+
		"sentinel down-after-milliseconds %s 500\nsentinel failover-timeout %s 3000\n",
		s.port, sentinelMaster, primary, sentinelMaster, sentinelMaster)
	if err := os.WriteFile(config, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), "redis-server", config, "--sentinel")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.process, s.exited = cmd.Process, make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(s.exited)
	}()
	t.Cleanup(s.kill)
	eventually(t, "the sentinel answers", func() bool {
		conn, err := net.DialTimeout("tcp", s.address(), time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return s
}

func (s *redisSentinels) url() string {
	addresses := make([]string, 0, len(s.sentinels))
	for _, server := range s.sentinels {
		addresses = append(addresses, server.address())
	}
	return "redis+sentinel://" + strings.Join(addresses, ",") + "/" + sentinelMaster
}

func TestFailoverThatLosesAFlush(t *testing.T) {
	t.Parallel()
	s := startSentinels(t)
	cfg := Config{URL: s.url(), Timeout: time.Second}
	here, there := newTestStore(t, cfg), newTestStore(t, cfg)
	eventually(t, "both follow the log", func() bool { return followed(here) && followed(there) })
	shares(t, "before", here, there)
	flushReaches(t, "before", here, there)

	m, want := alice()
	here.Begin("k", want, nil).Put(t.Context(), m, time.Hour, 0)
	eventually(t, "the replica has her", func() bool { return s.replica.client().Exists(t.Context(), "k").Val() == 1 })
	old := s.replica.client().Get(t.Context(), "k").Val()

	// The replica is frozen, so the flush stands in the log of the primary alone.
	s.replica.signal(syscall.SIGSTOP)
	before := here.log.head.Load().last.at
	flushed, err := here.Flush(t.Context(), Scope{Tenant: m.Tenant, KCID: m.KCID}, nil)
	if err != nil || flushed.Shared != SharedDone {
		t.Fatalf("flush: %+v, %v", flushed, err)
	}
	eventually(t, "the flush has been read by both", func() bool {
		h, o := here.log.head.Load(), there.log.head.Load()
		return h != nil && o != nil && h.last.at != before && h.last.at == o.last.at && here.Stats().Log.Pending == 0
	})
	s.primary.kill()
	s.replica.signal(syscall.SIGCONT)
	replica := s.replica.client()
	eventually(t, "the replica is the primary", func() bool {
		if strings.Contains(replica.Info(t.Context(), "replication").Val(), "role:master") {
			return true
		}
		for name, node := range map[string]*Store{"the node that flushed": here, "the other": there} {
			if entry, _, _ := node.Begin("k", want, nil).Get(t.Context()); entry != nil {
				t.Errorf("%s serves her meanwhile", name)
			}
		}
		return false
	})
	if got := replica.Get(t.Context(), "k").Val(); got != old {
		t.Errorf("the case is not what it should be: the new primary has %q", got)
	}
	late := newTestStore(t, cfg)
	eventually(t, "all follow the new log", func() bool {
		for name, node := range map[string]*Store{"the node that flushed": here, "the other": there} {
			if entry, _, _ := node.Begin("k", want, nil).Get(t.Context()); entry != nil {
				t.Errorf("%s serves her", name)
			}
		}
		h, o, l := here.log.head.Load(), there.log.head.Load(), late.log.head.Load()
		return h != nil && o != nil && l != nil && h.last.at == o.last.at && h.last.at == l.last.at && h.generation.id == l.generation.id &&
			here.log.followed(time.Now()) != nil
	})
	eventually(t, "it is said again to the new primary", func() bool {
		entry, _, _ := late.Begin("k", want, nil).Get(t.Context())
		return entry == nil
	})
	shares(t, "after", there, here)
	flushReaches(t, "after", there, here)
}

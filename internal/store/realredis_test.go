package store

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisServer is a real server, started for one test.
type redisServer struct {
	t       testing.TB
	port    int
	args    []string
	process *os.Process
	exited  chan struct{}
}

// startRedis starts redis-server on a free port of the loopback interface. The
// test is skipped if there is none, or fails if KCA_REQUIRE_SERVERS is set.
func startRedis(t testing.TB, args ...string) *redisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("KCA_REQUIRE_SERVERS") == "1" {
			t.Fatal("redis-server is not installed, and KCA_REQUIRE_SERVERS=1 demands it")
		}
		t.Skip("SKIPPED: redis-server is not installed, so nothing here was tested on a real Redis")
	}
	s := &redisServer{t: t, port: freePort(t), args: args}
	s.start()
	t.Cleanup(s.kill)
	return s
}

func freePort(t testing.TB) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().(*net.TCPAddr).Port
}

func (s *redisServer) start() {
	s.t.Helper()
	args := slices.Concat([]string{
		"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
		"--dir", s.t.TempDir(), "--loglevel", "warning",
	}, s.args)
	cmd := exec.Command("redis-server", args...)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.process, s.exited = cmd.Process, make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(s.exited)
	}()
	eventually(s.t, "redis-server answers", func() bool {
		conn, err := net.DialTimeout("tcp", s.address(), time.Second)
		if err != nil {
			return false
		}
		defer func() { _ = conn.Close() }()
		_, _ = conn.Write([]byte("PING\r\n"))
		n, _ := conn.Read(make([]byte, 16)) // any answer will do, it may be a refusal
		return n > 0
	})
}

func (s *redisServer) kill() {
	s.signal(syscall.SIGKILL)
	<-s.exited
}

func (s *redisServer) signal(signal os.Signal) { _ = s.process.Signal(signal) }

func (s *redisServer) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }
func (s *redisServer) url() string     { return "redis://" + s.address() + "/0" }

// client returns a client of the test's own, patient and with default settings.
func (s *redisServer) client() *redis.Client {
	client := redis.NewClient(&redis.Options{Addr: s.address()})
	s.t.Cleanup(func() { _ = client.Close() })
	return client
}

// selfSigned writes a certificate for cache.test, and its key.
func selfSigned(t testing.TB) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cache.test"}, DNSNames: []string{"cache.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(cert)
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", keyDER), roots
}

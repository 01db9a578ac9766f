package keycloakcacheauth

import (
	"maps"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// Caddy starts, and `caddy validate` passes, with everything down.
func TestProvisionDoesNoNetworkIO(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	address := listener.Addr().String()
	config := func(address string) object {
		return jsonConfig("https://"+address+"/realms/main", object{
			"resolvers": []any{sqlConfig("postgres://reader@" + address + "/app")},
			"stores":    []any{object{"url": "redis://" + address}},
		})
	}

	started := time.Now()
	_, cancel := mustLoadJSON(t, config("127.0.0.1:1")) // nothing listens there
	cancel()
	_, cancel = mustLoadJSON(t, config(address)) // nothing is ever answered there
	cancel()
	if took := time.Since(started); took > time.Second {
		t.Errorf("loading took %s with everything down", took)
	}

	// whoever connected before this would be the first to be accepted
	ours, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	first, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if first.RemoteAddr().String() != ours.LocalAddr().String() {
		t.Error("loading the configuration opened a connection")
	}
}

// ownIssuer returns an issuer that no other test uses.
func ownIssuer(t *testing.T) string {
	return "https://" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", ".")) + ".invalid/realms/main"
}

// keySetsOf returns the key sets of an issuer that are in use.
func keySetsOf(issuer string) []*keySet {
	var found []*keySet
	for _, keys := range keySets.All() {
		if keys.Issuer() == issuer {
			found = append(found, keys)
		}
	}
	return found
}

// redisURL returns a store's URL that no other test uses; nothing is there.
func redisURL(t *testing.T) string {
	return "redis://" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", ".")) + ".invalid"
}

// A configuration that fails gives back what it took, and no more: not what
// the running one uses.
func TestFailedLoadsReleaseWhatTheyTook(t *testing.T) {
	issuer, url := ownIssuer(t), redisURL(t)
	good := object{
		"stores":    []any{object{"url": url}},
		"resolvers": []any{sqlConfig("postgres://reader@127.0.0.1:1/app")},
	}
	with := func(changes object) object {
		fields := maps.Clone(good)
		maps.Copy(fields, changes)
		return jsonConfig(issuer, fields)
	}
	running, stop := mustLoadJSON(t, with(nil))
	keys := keySetsOf(issuer)
	if len(keys) != 1 {
		t.Fatalf("%d key sets in use, want 1", len(keys))
	}

	otherStore := object{"stores": []any{object{"url": url, "timeout": "1s"}}}
	goroutines := runtime.NumGoroutine()
	for range 100 {
		for name, configs := range map[string][]object{
			"before anything is taken":    {with(object{"audiences": nil})},
			"at the keys":                 {with(object{"issuers": []any{object{"url": issuer, "trust_pool": object{}}}})},
			"after the keys":              {with(object{"resolvers": []any{sqlConfig("nonsense")}})},
			"after the resolver":          {with(object{"stores": []any{object{"url": url + "/nonsense"}}})},
			"in a second handler":         {with(nil), with(object{"audiences": nil})},
			"after a store of its own":    {with(otherStore), with(object{"audiences": nil})},
			"after key sets of their own": {jsonConfig(issuer+"2", good), jsonConfig(issuer+"3", object{"stores": []any{object{"url": url + "/x"}}})},
		} {
			if _, _, err := loadJSON(t, configs...); err == nil {
				t.Fatalf("the configuration that fails %s was loaded", name)
			}
		}
	}

	if !slices.Contains(stores.All(), running.members.stores.common.memberStore) {
		t.Error("the running configuration's store is gone")
	}
	if !slices.Equal(keySetsOf(issuer), keys) {
		t.Error("the running configuration's key set is gone")
	}
	if n := len(keySetsOf(issuer+"2")) + len(keySetsOf(issuer+"3")); n != 0 {
		t.Errorf("%d key sets of failed configurations are left", n)
	}
	// the running configuration's store begins to follow its log meanwhile
	const beginning = 10
	waitFor(t, "goroutines of failed configurations to end", func() bool { return runtime.NumGoroutine() <= goroutines+beginning })

	stop() // the only user left, if no reference was leaked
	if slices.Contains(stores.All(), running.members.stores.common.memberStore) {
		t.Error("a failed configuration still refers to the store")
	}
	if len(keySetsOf(issuer)) != 0 {
		t.Error("a failed configuration still refers to the key set")
	}
}

func TestReloadWithUnchangedSettingsKeepsStoreAndKeys(t *testing.T) {
	issuer := ownIssuer(t)
	fields := object{"stores": []any{object{"url": redisURL(t)}}}
	before, stopBefore := mustLoadJSON(t, jsonConfig(issuer, fields))
	keys := keySetsOf(issuer)

	fields["ttl"] = "5m" // is no setting of either
	after, stopAfter := mustLoadJSON(t, jsonConfig(issuer, fields))
	stopBefore()
	if before.members.stores.common.memberStore != after.members.stores.common.memberStore {
		t.Error("the reload opened another store")
	}
	if now := keySetsOf(issuer); len(now) != 1 || !slices.Equal(now, keys) {
		t.Errorf("%d key sets after the reload, want the one from before", len(now))
	}
	stopAfter()
	if slices.Contains(stores.All(), after.members.stores.common.memberStore) || len(keySetsOf(issuer)) != 0 {
		t.Error("store or key set outlived their last user")
	}
}

func TestReloadWithChangedSettingsReplacesStoreOrKeys(t *testing.T) {
	const password = "KCA_TEST_PASSWORD"
	for name, tc := range map[string]struct {
		change           func(t *testing.T, config object)
		newStore, newKey bool
	}{
		"key_prefix":         {func(_ *testing.T, c object) { c["stores"].([]any)[0].(object)["key_prefix"] = "other" }, true, false},
		"store timeout":      {func(_ *testing.T, c object) { c["stores"].([]any)[0].(object)["timeout"] = "70ms" }, true, false},
		"memory":             {func(_ *testing.T, c object) { c["memory"] = object{"max_size": 2 << 20} }, true, false},
		"a rotated password": {func(t *testing.T, _ object) { t.Setenv(password, "rotated") }, true, false},
		"jwks_url": {func(_ *testing.T, c object) {
			c["issuers"].([]any)[0].(object)["jwks_url"] = "https://kc.invalid/certs"
		}, false, true},
		"trust_pool": {func(_ *testing.T, c object) {
			c["issuers"].([]any)[0].(object)["trust_pool"] = object{"provider": "file", "pem_files": []any{"testdata/ca.pem"}}
		}, false, true},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Setenv(password, "first")
			issuer := ownIssuer(t)
			url := strings.Replace(redisURL(t), "://", "://:{env."+password+"}@", 1)
			config := jsonConfig(issuer, object{"stores": []any{object{"url": url}}})
			before, stopBefore := mustLoadJSON(t, config)
			keysBefore := keySetsOf(issuer)

			tc.change(t, config)
			after, _ := mustLoadJSON(t, config)
			if got := before.members.stores.common.memberStore != after.members.stores.common.memberStore; got != tc.newStore {
				t.Errorf("another store: %t, want %t", got, tc.newStore)
			}
			if got := len(keySetsOf(issuer)) == 2; got != tc.newKey {
				t.Errorf("another key set: %t, want %t", got, tc.newKey)
			}

			stopBefore()
			if got := !slices.Contains(stores.All(), before.members.stores.common.memberStore); got != tc.newStore {
				t.Errorf("the old store was closed: %t, want %t", got, tc.newStore)
			}
			if got := !slices.Contains(keySetsOf(issuer), keysBefore[0]); got != tc.newKey {
				t.Errorf("the old key set was closed: %t, want %t", got, tc.newKey)
			}
		})
	}
}

// A private authority's certificate that changes under the same name must make
// a new client.
func TestReloadWithChangedTrustPoolFileReplacesTheKeys(t *testing.T) {
	dir, issuer := t.TempDir(), ownIssuer(t)
	file := filepath.Join(dir, "ca.pem")
	writeCertificate(t, file, filepath.Join(dir, "ca.key"))
	config := jsonConfig(issuer, object{"issuers": []any{
		object{"url": issuer, "trust_pool": object{"provider": "file", "pem_files": []any{file}}},
	}})
	mustLoadJSON(t, config)
	mustLoadJSON(t, config)
	if n := len(keySetsOf(issuer)); n != 1 {
		t.Fatalf("%d key sets for one file, want 1", n)
	}
	writeCertificate(t, file, filepath.Join(dir, "ca.key"))
	mustLoadJSON(t, config)
	if n := len(keySetsOf(issuer)); n != 2 {
		t.Errorf("%d key sets after the file has changed, want 2", n)
	}
}

// The check command loads what it never serves, and may take its time.
func TestStoresThatNeverBegin(t *testing.T) {
	s := newSite(t)
	h, _ := load(t, s.config(func(h *Handler) { h.Stores = []*Store{{URL: "redis://127.0.0.1:1"}} }))
	cached := h.members.stores.common
	leaveStoresAlone()
	cached.begin()
	if !cached.begun.IsZero() || cached.later.Stop() {
		t.Error("it has begun, or will")
	}
}

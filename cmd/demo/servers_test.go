//go:build unix

package main

import (
	"bytes"
	"testing"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

func TestTheSameOnRealServers(t *testing.T) {
	keycloak := servers.Keycloak(t)
	args := []string{
		"-check", "-ttl", "3s", "-listen", anyPort,
		"-keycloak", keycloak.URL, "-keycloak-admin", keycloak.AdminUser() + ":" + keycloak.AdminPassword(),
		"-postgres", servers.Postgres(t),
		"-redis", servers.Redis(t).URL(),
	}
	for _, name := range []string{"on servers that know nothing of the demo", "on what an earlier run has left there"} {
		t.Run(name, func(t *testing.T) {
			dir := temporary(t)
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), args, &stdout, &stderr); code != exitOK {
				t.Errorf("exit code %d", code)
			}
			if t.Failed() || testing.Verbose() {
				t.Logf("%s%s", stdout.String(), stderr.String())
			}
			wantEmpty(t, dir)
		})
	}
}

func TestItRefusesAKeycloakThatIsNone(t *testing.T) {
	for name, want := range map[string]refusal{
		"a Keycloak that is down":         {[]string{"-listen", anyPort, "-keycloak", "http://127.0.0.1:1", "-keycloak-admin", "admin:hunter2"}, exitFailed, "setting up the realm"},
		"a Keycloak URL that is none":     {[]string{"-listen", anyPort, "-keycloak", "hunter2"}, exitFailed, "-keycloak takes a URL"},
		"an administrator without secret": {[]string{"-listen", anyPort, "-keycloak", "http://127.0.0.1:1", "-keycloak-admin", "hunter2"}, exitFailed, "takes user:password"},
	} {
		t.Run(name, want.test)
	}
}

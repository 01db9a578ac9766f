package keycloakcacheauth

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// checkArguments holds, in a process that is to be `caddy keycloak-cache-auth
// check` and not a test, the command's arguments.
const checkArguments = "KCA_TEST_CHECK"

// check runs the command in a process of its own, and returns what it prints and
// whether all is well: what it loads stays until its process ends, and other tests
// would find it. A test that uses it is run again in that process, so it has to
// come first there.
func check(t *testing.T, arguments ...string) (output string, ok bool) {
	t.Helper()
	test, _, _ := strings.Cut(t.Name(), "/")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), checkArguments+"="+strings.Join(arguments, "\n"), "KCA_TEST_PASSWORD="+secretInTests)
	printed, err := cmd.CombinedOutput()
	return string(printed), err == nil
}

// beCheck makes the process of [check] what it is to be.
func beCheck(t *testing.T) {
	t.Helper()
	arguments := os.Getenv(checkArguments)
	if arguments == "" {
		return
	}
	cmd := checkCommand()
	cmd.SetArgs(strings.Split(arguments, "\n"))
	if cmd.ExecuteContext(t.Context()) != nil { // which prints why
		os.Exit(1)
	}
	os.Exit(0)
}

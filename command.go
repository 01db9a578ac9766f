package keycloakcacheauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "keycloak-cache-auth",
		Usage: "flush|show|stats|check [--address <interface>] [--config <path>]",
		Short: "Looks into the members' caches of a running Caddy, flushes them, and checks resolvers",
		Long: `
Looks into the caches of keycloak_cache_auth in a running Caddy, and flushes
them, through Caddy's admin API.

Flushing holds for all nodes that share the store: none of them serves again
what was cached before.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(flushCommand(), showCommand(), statsCommand(), checkCommand())
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		},
	})
}

func flushCommand() *cobra.Command {
	var scope FlushScope
	cmd := &cobra.Command{
		Use:   "flush",
		Short: "Flushes members, so that they are looked up anew",
		Example: `  caddy keycloak-cache-auth flush --tenant acme --kc-id 8d0c3a1e-…
  caddy keycloak-cache-auth flush --tenant acme --member-id 4711
  caddy keycloak-cache-auth flush --kc-id 8d0c3a1e-…
  caddy keycloak-cache-auth flush --tenant acme
  caddy keycloak-cache-auth flush --all`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := json.Marshal(scope)
			if err != nil {
				return err
			}
			return callAdmin(cmd, http.MethodPost, adminPath+"flush", body)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&scope.All, "all", false, "flush everybody")
	flags.StringVar(&scope.Tenant, "tenant", "", "the tenant")
	flags.StringVar(&scope.KCID, "kc-id", "", "the user's Keycloak id")
	flags.StringVar(&scope.MemberID, "member-id", "", "the application's id of the member; needs --tenant")
	flags.StringVar(&scope.Issuer, "issuer", "", "the realm of the user; needs --kc-id")
	addAdminFlags(cmd)
	return cmd
}

func showCommand() *cobra.Command {
	var attributes bool
	cmd := &cobra.Command{
		Use:     "show <tenant> <kc_id>",
		Short:   "Shows what is cached of a member",
		Example: `  caddy keycloak-cache-auth show acme 8d0c3a1e-… --attributes`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := adminPath + "members/" + url.PathEscape(args[0]) + "/" + url.PathEscape(args[1])
			if attributes {
				path += "?attributes=true"
			}
			return callAdmin(cmd, http.MethodGet, path, nil)
		},
	}
	cmd.Flags().BoolVar(&attributes, "attributes", false, "show the member's attributes, too")
	addAdminFlags(cmd)
	return cmd
}

func statsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Tells how the caches are",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return callAdmin(cmd, http.MethodGet, adminPath+"stats", nil)
		},
	}
	addAdminFlags(cmd)
	return cmd
}

// addAdminFlags lets a command find the running Caddy as `caddy reload` does.
func addAdminFlags(cmd *cobra.Command) {
	cmd.Flags().String("address", "", "the address of Caddy's admin API, if not the default")
	cmd.Flags().StringP("config", "c", "", "a configuration file that names the address of the admin API")
	cmd.Flags().StringP("adapter", "a", "", "the name of the adapter of that file")
}

// callAdmin sends a request to the admin API, and prints the answer.
func callAdmin(cmd *cobra.Command, method, path string, body []byte) error {
	address, _ := cmd.Flags().GetString("address")
	config, _ := cmd.Flags().GetString("config")
	adapter, _ := cmd.Flags().GetString("adapter")
	address, err := caddycmd.DetermineAdminAPIAddress(address, nil, config, adapter)
	if err != nil {
		return fmt.Errorf("finding the admin API: %w", err)
	}
	header := make(http.Header)
	if body != nil {
		header.Set("Content-Type", "application/json")
	}
	// an answer of 400 and above is an error here already
	response, err := caddycmd.AdminAPIRequest(address, method, path, header, bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return err
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, answer, "", "  "); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), pretty.String()); err != nil {
		return err
	}
	if response.StatusCode == statusPending {
		return errors.New("not all nodes know of it yet: see the answer")
	}
	return nil
}

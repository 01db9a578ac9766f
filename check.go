package keycloakcacheauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// checkTimeout bounds the check of one resolver.
const checkTimeout = 30 * time.Second

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Asks each resolver about a user who does not exist, before traffic does",
		Long: `
Loads a configuration as ` + "`caddy validate`" + ` does, without starting it, and has each resolver ask its source
about a user who does not exist: so it finds out what only a query finds out,
such as a column that is missing or a right that was not given.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, _ := cmd.Flags().GetString("config")
			adapter, _ := cmd.Flags().GetString("adapter")
			config, _, _, err := caddycmd.LoadConfig(file, adapter)
			if err != nil {
				return err
			}
			return checkResolvers(cmd, config)
		},
	}
	cmd.Flags().StringP("config", "c", "", "the configuration file; default: the Caddyfile in this directory")
	cmd.Flags().StringP("adapter", "a", "", "the name of the adapter of that file")
	return cmd
}

// checkResolvers checks the resolvers of all our handlers in a configuration.
// They are loaded once more, into the context of the whole configuration, so that
// they find what they need of it: its storage, its apps. What is loaded of that
// stays until the process ends, which is after this command.
func checkResolvers(cmd *cobra.Command, config []byte) error {
	config = caddy.RemoveMetaFields(config)
	var whole *caddy.Config
	if err := caddy.StrictUnmarshalJSON(config, &whole); err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	var parsed any
	if err := json.Unmarshal(config, &parsed); err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	provisioned, err := caddy.ProvisionContext(whole)
	if err != nil {
		return fmt.Errorf("loading the configuration: %w", err)
	}
	leaveStoresAlone()
	ctx, cancel := caddy.NewContext(provisioned)
	defer cancel()
	checked := 0
	var errs []error
	for number, raw := range ourHandlers(parsed) {
		mod, err := ctx.LoadModuleByID(string(Handler{}.CaddyModule().ID), raw)
		leaveStoresAlone()
		if err != nil {
			errs = append(errs, fmt.Errorf("handler %d: %w", number+1, err))
			continue
		}
		h, ok := mod.(*Handler)
		if !ok || h.members == nil {
			continue
		}
		for i, resolver := range h.members.resolvers {
			checker, ok := resolver.(member.Checker)
			if !ok {
				continue
			}
			checked++
			if err := checkOne(cmd.Context(), checker); err != nil {
				errs = append(errs, fmt.Errorf("handler %d, resolver %d: %w", number+1, i+1, err))
			}
		}
	}
	if len(errs) == 0 {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d resolvers are in order\n", checked)
		return err
	}
	return errors.Join(errs...)
}

// leaveStoresAlone keeps all stores from following logs and changes: a check that
// takes its time must not begin to flush.
func leaveStoresAlone() {
	for _, s := range stores.All() {
		s.neverBegin()
	}
}

func checkOne(ctx context.Context, checker member.Checker) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return checker.Check(ctx)
}

// ourHandlers returns the configurations of our handlers, wherever they stand
// in a configuration.
func ourHandlers(config any) (handlers []json.RawMessage) {
	switch of := config.(type) {
	case []any:
		for _, element := range of {
			handlers = append(handlers, ourHandlers(element)...)
		}
	case map[string]any:
		if of["handler"] == "keycloak_cache_auth" {
			delete(of, "handler")
			raw, err := json.Marshal(of)
			if err == nil {
				handlers = append(handlers, raw)
			}
			return handlers
		}
		for _, name := range slices.Sorted(maps.Keys(of)) {
			handlers = append(handlers, ourHandlers(of[name])...)
		}
	}
	return handlers
}

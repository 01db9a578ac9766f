// Package files finds members in files: that of a user in a tenant is
// <dir>/<tenant>/<kc_id>.json.
package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

func init() { caddy.RegisterModule(Resolver{}) }

// Resolver finds members in files.
type Resolver struct {
	// The directory that has one directory for each tenant. Required.
	Dir string `json:"dir,omitempty"`
}

// record is what stands in a file: a member, with names for its fields.
type record struct {
	KCID       string                  `json:"kc_id"`
	Tenant     string                  `json:"tenant"`
	Issuer     string                  `json:"issuer"`
	Active     bool                    `json:"active"`
	ID         string                  `json:"id"`
	Attributes map[string]member.Value `json:"attributes"`
}

func (Resolver) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: member.Namespace + ".files", New: func() caddy.Module { return new(Resolver) }}
}

// UnmarshalCaddyfile reads `resolver files <dir>`.
func (r *Resolver) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if d.Next(); !d.AllArgs(&r.Dir) {
		return d.ArgErr()
	}
	return nil
}

func (r *Resolver) Resolve(_ context.Context, q member.Query) (*member.Member, error) {
	root, err := os.OpenRoot(r.Dir) // no name leads out of it
	if err != nil {
		return nil, err
	}
	defer root.Close()
	text, err := root.ReadFile(q.Tenant + "/" + url.PathEscape(q.KCID) + ".json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, member.ErrUnknown
	} else if err != nil {
		return nil, err
	}
	var m record
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("the file of a member of %s: %w", q.Tenant, err)
	}
	return &member.Member{
		KCID: m.KCID, Tenant: m.Tenant, Issuer: m.Issuer, Active: m.Active, ID: m.ID, Attributes: m.Attributes,
	}, nil
}

func (r *Resolver) Identity() string { return "files in " + r.Dir }

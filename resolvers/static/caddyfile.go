package static

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// UnmarshalCaddyfile sets up the resolver from Caddyfile tokens. Syntax:
//
//	resolver static {
//	    member <tenant> <kc_id> {
//	        id <id>
//	        inactive
//	        <attribute> <value>
//	        <attribute> <value> <value...>
//	        list <attribute> [<value...>]
//	    }
//	}
//
// An attribute with one value is a text, one with several is a list. `list`
// makes a list also of one value, or of none. `roles` is a list in any case.
func (r *Resolver) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the resolver's name
	if d.NextArg() {
		return d.Err("resolver static takes no arguments; put its members into a block: resolver static { … }")
	}
	seen := make(map[identity]bool)
	for d.NextBlock(0) {
		if d.Val() != "member" {
			return d.Errf("resolver static has no option %q; it has only: member <tenant> <kc_id> { … }", d.Val())
		}
		args := d.RemainingArgs()
		if len(args) != 2 || args[0] == "" || args[1] == "" {
			return d.Err("member takes a tenant and a kc_id: member <tenant> <kc_id> { … }")
		}
		m := Member{Tenant: args[0], KCID: args[1]}
		key := identity{m.Tenant, m.KCID}
		if seen[key] {
			return d.Errf("the member is listed twice in tenant %q; leave one of them out", m.Tenant)
		}
		seen[key] = true
		if err := m.unmarshalBlock(d); err != nil {
			return err
		}
		r.Members = append(r.Members, m)
	}
	if len(r.Members) == 0 {
		return d.Err("resolver static lists nobody; add: member <tenant> <kc_id> { … }")
	}
	return nil
}

func (m *Member) unmarshalBlock(d *caddyfile.Dispenser) error {
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch option := d.Val(); option {
		case "id":
			if m.ID != "" {
				return d.Err("id is given twice; leave one of them out")
			}
			args := d.RemainingArgs()
			if len(args) != 1 || args[0] == "" {
				return d.Err("id takes one value: id <id>")
			}
			m.ID = args[0]
		case "inactive":
			if m.Inactive {
				return d.Err("inactive is given twice; leave one of them out")
			}
			if d.NextArg() {
				return d.Err("inactive takes no value; leave the line out for an active member")
			}
			m.Inactive = true
		case "list":
			if !d.NextArg() {
				return d.Err("list needs the name of an attribute: list <attribute> [<value...>]")
			}
			name := d.Val()
			if err := m.addAttribute(d, name, member.List(d.RemainingArgs()...)); err != nil {
				return err
			}
		default:
			args := d.RemainingArgs()
			if len(args) == 0 {
				return d.Errf("attribute %s has no value; add one, or write: list %[1]s", option)
			}
			value := member.Text(args[0])
			if len(args) > 1 || option == rolesAttribute {
				value = member.List(args...)
			}
			if err := m.addAttribute(d, option, value); err != nil {
				return err
			}
		}
	}
	if m.ID == "" {
		return d.Errf("the member of tenant %q has no id; add the line: id <id>", m.Tenant)
	}
	return nil
}

func (m *Member) addAttribute(d *caddyfile.Dispenser, name string, value member.Value) error {
	if err := checkName(name); err != nil {
		return d.WrapErr(err)
	}
	if _, given := m.Attributes[name]; given {
		return d.Errf("attribute %s is given twice; write all its values on one line", name)
	}
	if m.Attributes == nil {
		m.Attributes = make(map[string]member.Value)
	}
	m.Attributes[name] = value
	return nil
}

package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/servers"
)

// sqlCase counts the statements that a database sees, on the wire, while each member
// comes again and again within his ttl, on all connections at once.
func (b *bench) sqlCase(o *owner) error {
	people, err := b.people(func() []person { return b.crowd.different(b.Rows) })
	if err != nil {
		return err
	}
	database := servers.StartPostgres(o)
	var rows strings.Builder
	for i, p := range people {
		if i > 0 {
			rows.WriteString(", ")
		}
		fmt.Fprintf(&rows, "('%s', '%s', true, 'm-%[1]s', '{editor,viewer}')", p.id, tenantNames(1)[0])
	}
	servers.PSQL(o, database.DSN, `
		create table members (kc_id text, tenant text, active boolean, id text, roles text[], primary key (tenant, kc_id));
		create table grants (kc_id text, tenant text, name text);
		insert into members values `+rows.String())
	for key, profile := range map[string]string{
		keyStatements: "",
		keyProfile:    "\n\t\t\tprofile \"select name from grants where kc_id = :kc_id and tenant = :tenant\"",
	} {
		counted, err := b.countStatements(o, database.DSN, people, profile)
		if err != nil {
			return err
		}
		b.report.set(key, []float64{float64(counted.executed) / float64(len(people))},
			fmt.Sprintf("%d members, each asked for %d times; %d prepared, %d to see whether a connection lives",
				len(people), sqlVisits*b.Connections, counted.prepared, counted.pings))
	}
	return nil
}

// sqlVisits is how often a member comes on each connection.
const sqlVisits = 4

func (b *bench) countStatements(o *owner, dsn string, people []person, profile string) (statementCount, error) {
	database, err := url.Parse(dsn)
	if err != nil {
		return statementCount{}, err
	}
	counter, err := newStatementCounter(o.ctx, database.Host)
	if err != nil {
		return statementCount{}, err
	}
	o.Cleanup(counter.close)
	database.Host = counter.addr()
	s := b.startSite(o, b.login(fmt.Sprintf(`resolver sql {
			driver postgres
			dsn "%s"
			query "select kc_id, tenant, active, id, roles from members where kc_id = :kc_id and tenant = :tenant"%s
		}`, database, profile), lastLong)+respond)
	visit := sqlVisits * b.Connections // one after the other, so that all connections ask for the same
	load, err := newLoad(s.Addr, b.Connections, &visits{
		people: people, tenants: tenantNames(1), identity: memberOf,
		pick: func(seq int) (int, int) { return seq / visit % len(people), 0 },
	})
	if err != nil {
		return statementCount{}, err
	}
	defer load.close()
	if _, err := load.closed(o.ctx, 0, visit*len(people)); err != nil {
		return statementCount{}, err
	}
	return counter.counted(), nil
}

package sqlresolver

import (
	"container/list"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/internal/shared"
	"github.com/keycloak-cache-auth/caddy-keycloak-cache-auth/member"
)

// tenantMark stands for the tenant in `dsn` and `schema`.
const tenantMark = "{tenant}"

// Bounds of the databases that are kept open, one for each tenant.
const (
	defaultMaxTenants = 100
	maxMaxTenants     = 10_000
)

// tenantName is what a tenant must be called to become part of an address,
// whatever names the configuration allows.
var tenantName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// probeTenant is a tenant that nobody has.
const probeTenant = "kca-probe-of-the-template"

// Errors that say why a tenant certainly has no members.
var (
	errNoDatabase = ourError{fmt.Errorf("%w: it has no database", member.ErrUnknownTenant)}
	errBadTenant  = ourError{fmt.Errorf("%w: its name cannot be that of a database", member.ErrUnknownTenant)}
)

// of returns the address of one tenant's database.
func (a address) of(tenant string) (address, error) {
	if !tenantName.MatchString(tenant) {
		return address{}, errBadTenant
	}
	// in a URL as well as elsewhere these characters stand for themselves; should the pattern change, the URL holds
	a.DSN = strings.ReplaceAll(a.DSN, tenantMark, url.PathEscape(tenant))
	a.Schema = strings.ReplaceAll(a.Schema, tenantMark, tenant)
	return a, nil
}

// perTenant tells whether the address is that of many databases.
func (a address) perTenant() bool { return strings.Contains(a.DSN+a.Schema, tenantMark) }

// checkHost refuses a template by which a tenant's name could say which server
// is given the password.
func checkHost(host string) error {
	i := strings.LastIndex(host, probeTenant)
	if i < 0 || strings.HasPrefix(host, "/") {
		return nil
	}
	if rest := host[i+len(probeTenant):]; len(rest) < 2 || rest[0] != '.' {
		return errors.New("{tenant} must not be the end of a host's name, for a request could then name any host; put it into the database's name, or add .domain")
	}
	return nil
}

// tenantDatabases are the databases of tenants, each with a pool of its own.
// They are made on demand; those not used for long are closed first.
type tenantDatabases struct {
	kind     kind
	settings settings // with {tenant} in its address
	most     int
	idle     time.Duration

	mu     sync.Mutex
	byName map[string]*tenantDatabase
	proven recency // those known to exist
	fresh  recency // those of which nothing is known yet: made up names push out no others
	closed bool
}

// recency is a list of *tenantDatabase, the last used first.
type recency struct{ *list.List }

type tenantDatabase struct {
	*database
	tenant  string
	used    time.Time
	in      recency
	element *list.Element
}

// newTenantDatabases checks the template, and opens nothing.
func newTenantDatabases(k kind, s settings, most int) (*tenantDatabases, error) {
	t := &tenantDatabases{
		kind: k, settings: s, most: most, idle: s.ConnMaxIdleTime,
		byName: make(map[string]*tenantDatabase), proven: recency{list.New()}, fresh: recency{list.New()},
	}
	src, err := t.probe()
	if err != nil {
		return nil, err
	}
	for _, secret := range src.secrets() {
		if strings.Contains(secret, probeTenant) {
			return nil, errors.New("{tenant} must not be part of the password")
		}
	}
	for _, host := range src.hosts() {
		if err := checkHost(host); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// probe returns the database of a tenant that nobody has.
func (t *tenantDatabases) probe() (source, error) {
	a, err := t.settings.of(probeTenant)
	if err != nil {
		return nil, err
	}
	return t.kind.open(a)
}

// of returns the database of a tenant.
func (t *tenantDatabases) of(tenant string) (*database, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if found := t.byName[tenant]; found != nil {
		found.used = time.Now()
		found.in.MoveToFront(found.element)
		t.closeIdle()
		return found.database, nil
	}
	s := t.settings
	var err error
	if s.address, err = s.of(tenant); err != nil {
		return nil, err
	}
	s.ofTenant = true
	db, err := newDatabase(t.kind, s)
	if errors.Is(err, errLongName) {
		return nil, errBadTenant
	}
	if err != nil {
		return nil, ourErrorf("the database of the tenant: %w", err)
	}
	if t.closed {
		return db, db.Destruct() // for a request that is still being served
	}
	made := &tenantDatabase{database: db, tenant: tenant, used: time.Now()}
	t.byName[tenant] = made
	made.moveTo(t.fresh)
	t.closeIdle()
	return db, nil
}

// moveTo puts the database in front of a list.
func (d *tenantDatabase) moveTo(r recency) {
	if d.element != nil {
		d.in.Remove(d.element)
	}
	d.in, d.element = r, r.PushFront(d)
}

// learn takes note of what a query has found out about a tenant's database.
func (t *tenantDatabases) learn(tenant string, db *database, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := t.byName[tenant]
	switch {
	case found == nil || found.database != db:
	case errors.Is(err, errNoDatabase):
		t.remove(found)
	case found.in == t.fresh && (err == nil || errors.Is(err, member.ErrUnknown)):
		found.moveTo(t.proven)
		t.closeIdle()
	}
}

// closeIdle closes what is too much, or was not used for long. It needs the
// lock.
func (t *tenantDatabases) closeIdle() {
	now := time.Now()
	for _, r := range []recency{t.proven, t.fresh} {
		for last := r.Back(); last != nil; last = r.Back() {
			d := last.Value.(*tenantDatabase)
			if r.Len() <= t.most && now.Sub(d.used) <= t.idle {
				break
			}
			t.remove(d)
		}
	}
}

// remove needs the lock. Queries that have begun are finished.
func (t *tenantDatabases) remove(d *tenantDatabase) {
	d.in.Remove(d.element)
	delete(t.byName, d.tenant)
	_ = d.Destruct() // never fails
}

// Destruct closes all databases, as [database.Destruct] does.
func (t *tenantDatabases) Destruct() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, d := range t.byName {
		t.remove(d)
	}
	return nil
}

// place is where members are: one database, or one for each tenant.
type place struct {
	one  *database
	many *tenantDatabases
}

// Both outlive a configuration, so that a reload keeps their connections.
var (
	databases          = shared.NewPool[*database]()
	databasesOfTenants = shared.NewPool[*tenantDatabases]()
)

// newPlace takes a share of a place.
func newPlace(k kind, s settings, most int) (place, func() error, error) {
	if !s.perTenant() {
		one, release, err := databases.Acquire(s, func() (*database, error) { return newDatabase(k, s) })
		return place{one: one}, release, err
	}
	key := struct {
		settings
		Most int
	}{s, most}
	many, release, err := databasesOfTenants.Acquire(key, func() (*tenantDatabases, error) { return newTenantDatabases(k, s, most) })
	return place{many: many}, release, err
}

// of returns the database that holds the members of a tenant.
func (p place) of(tenant string) (*database, error) {
	if p.many == nil {
		return p.one, nil
	}
	return p.many.of(tenant)
}

// learn takes note of what a look-up has found out about the tenant.
func (p place) learn(tenant string, db *database, err error) {
	if p.many != nil {
		p.many.learn(tenant, db, err)
	}
}

// describe returns what tells the place from others.
func (p place) describe() (string, error) {
	if p.many == nil {
		return p.one.source.describe(), nil
	}
	src, err := p.many.probe()
	if err != nil {
		return "", err
	}
	return src.describe() + " " + p.many.settings.Schema, nil
}

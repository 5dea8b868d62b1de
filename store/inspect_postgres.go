package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// Why a PostgreSQL database cannot be looked at; see Inspect.
var (
	// ErrUnreachable is a server to which there is no way.
	ErrUnreachable = errors.New("the server cannot be reached")
	// ErrNotAdmitted is a server that does not take this user or this password.
	ErrNotAdmitted = errors.New("the server does not admit this user")
	// ErrNoDatabase is a server without the database.
	ErrNoDatabase = errors.New("the server has no such database")
	// ErrFull is a server that has no connection left.
	ErrFull = errors.New("the server has no connection left")
)

// inspectPostgres is Inspect on PostgreSQL.
func inspectPostgres(ctx context.Context, o InspectOptions) (*Inspection, error) {
	p, err := parsePostgres(o.DSN)
	if err != nil {
		return nil, err
	}
	engine := p.dialect()
	want, err := newestMigration(engine.files)
	if err != nil {
		return nil, err
	}
	db := p.pool(lookers)
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(whyClosed(err), db.Close())
	}
	s := &Store{dialect: engine, ring: o.Ring, want: want, reads: newReader(db, engine)}
	s.newWriters(1, 1) // which nobody runs
	return &Inspection{store: s}, nil
}

// whyClosed adds to an error what kind it is. The driver's own words hold no password.
func whyClosed(err error) error {
	kind := ErrUnreachable
	switch {
	case codeIn(err, "28"):
		kind = ErrNotAdmitted
	case codeIn(err, "3D"):
		kind = ErrNoDatabase
	case codeIn(err, "53300"):
		kind = ErrFull
	}
	return fmt.Errorf("%w: %w", kind, plainly(err))
}

// Server is what a PostgreSQL server says of itself.
type Server struct {
	// Version is such as "15.4"; TooOld says that no node runs on it.
	Version string
	TooOld  bool
	// Pooled says that a pooler answers in the server's place.
	Pooled bool
	// Standby says that nothing can be written there; MayCreate that this user may change the schema. Forbidden is the tables that
	// are there and that it may not read or write.
	Standby   bool
	MayCreate bool
	Forbidden []string
	// SynchronousCommit, Fsync and FullPageWrites are the settings as this user has them in this database.
	SynchronousCommit string
	Fsync             string
	FullPageWrites    string
	// Encoding is the database's.
	Encoding string
	// Ahead is how far the server's clock is ahead of this machine's, exact to half of RoundTrip.
	Ahead     time.Duration
	RoundTrip time.Duration
	// Most is how many connections this user may have in this database, Used how many there are now that count towards it.
	Most int
	Used int
}

// Left is how many more connections can be made.
func (s Server) Left() int { return max(s.Most-s.Used, 0) }

// selectServer finds how many connections are left where they are fewest: of the server (those kept for its administrators left
// out), of the database, of the role. A user who may not see other users' connections still sees that they are there.
const selectServer = `WITH users AS (SELECT datid, usesysid FROM pg_stat_activity WHERE backend_type = 'client backend'),
	bounds AS (
		SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
			- COALESCE(current_setting('reserved_connections', true), '0')::int AS most, (SELECT count(*) FROM users)::int AS used
		UNION ALL SELECT d.datconnlimit, (SELECT count(*) FROM users WHERE datid = d.oid)::int
			FROM pg_database d WHERE d.datname = current_database() AND d.datconnlimit >= 0
		UNION ALL SELECT r.rolconnlimit, (SELECT count(*) FROM users WHERE usesysid = r.oid)::int
			FROM pg_roles r WHERE r.rolname = current_user AND r.rolconnlimit >= 0)
	SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,
		pg_is_in_recovery() OR current_setting('transaction_read_only')::bool AS standby,
		COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
		current_setting('synchronous_commit') AS synchronous_commit, current_setting('fsync') AS fsync,
		current_setting('full_page_writes') AS full_page_writes, current_setting('server_encoding') AS encoding,
		` + pgClock + ` AS now, most, used
	FROM bounds ORDER BY most - used LIMIT 1`

// selectForbidden names what a node reads and writes, and this user may not. Numbers of places come from a sequence.
const selectForbidden = `SELECT c.relname FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND (c.relkind IN ('r', 'p') AND c.relname = ANY(string_to_array(?, ','))
		AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
	OR c.relkind IN ('r', 'p') AND c.relname IN ('copies', 'goose_db_version') AND NOT has_table_privilege(c.oid, 'SELECT')
	OR c.relkind = 'S' AND c.relname = 'places' AND NOT (has_sequence_privilege(c.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT')))
	ORDER BY c.relname`

// Server asks the server about itself; on SQLite there is none, and that is an error.
func (i *Inspection) Server(ctx context.Context) (Server, error) {
	if !i.store.dialect.shared {
		return Server{}, errors.New("ask the server: SQLite has none")
	}
	var row struct {
		Version           string `db:"version"`
		Number            int    `db:"number"`
		Standby           bool   `db:"standby"`
		MayCreate         bool   `db:"may_create"`
		SynchronousCommit string `db:"synchronous_commit"`
		Fsync             string `db:"fsync"`
		FullPageWrites    string `db:"full_page_writes"`
		Encoding          string `db:"encoding"`
		Now               int64  `db:"now"`
		Most              int    `db:"most"`
		Used              int    `db:"used"`
	}
	conn, err := i.store.reads.db.Connx(ctx)
	if err != nil {
		return Server{}, i.store.readError("ask the server", err)
	}
	defer func() { _ = conn.Close() }() // back to its pool
	var s Server
	// The second answer is the one that counts: the first had to be planned.
	for range 2 {
		begun := time.Now()
		if err := conn.GetContext(ctx, &row, selectServer); err != nil {
			return Server{}, i.store.readError("ask the server", err)
		}
		s.RoundTrip = time.Since(begun)
		s.Ahead = fromMillis(row.Now).Sub(begun.Add(s.RoundTrip / 2))
	}
	s.Version, _, _ = strings.Cut(row.Version, " ")
	s.TooOld, s.Standby, s.MayCreate = row.Number < oldestPG, row.Standby, row.MayCreate
	s.SynchronousCommit, s.Fsync, s.FullPageWrites, s.Encoding = row.SynchronousCommit, row.Fsync, row.FullPageWrites, row.Encoding
	s.Most, s.Used = row.Most, row.Used
	tables := strings.Join(append([]string{"nodes", "leases"}, copied...), ",")
	if err := conn.SelectContext(ctx, &s.Forbidden, i.store.dialect.rebind(selectForbidden), tables); err != nil {
		return Server{}, i.store.readError("ask for the rights of this user", err)
	}
	ours, err := ownSession(ctx, conn)
	s.Pooled = !ours
	return s, err
}

// Duty is what one node does for all.
type Duty struct {
	Name string
	Node ident.Node
	// Held says that the node's time is not over.
	Held bool
}

// Nodes returns the database's clock, the nodes that said something within the last minute, and the duties that were ever done.
func (i *Inspection) Nodes(ctx context.Context) (now time.Time, all []messages.Node, duties []Duty, err error) {
	s := i.store
	var rows []nodeRow
	const nodes = "SELECT id, joined_at, beat_at, " + pgClock + " AS now FROM nodes ORDER BY joined_at, id"
	if err := s.reads.list(ctx, &rows, nodes); err != nil {
		return time.Time{}, nil, nil, s.readError("read the nodes", err)
	}
	now, all = nodesOf(rows)
	var leases []struct {
		Name string     `db:"name"`
		Node ident.Node `db:"node"`
		Held bool       `db:"held"`
	}
	const held = "SELECT name, node, until > " + pgClock + " AS held FROM leases ORDER BY name"
	if err := s.reads.list(ctx, &leases, held); err != nil {
		return time.Time{}, nil, nil, s.readError("read the leases", err)
	}
	for _, l := range leases {
		duties = append(duties, Duty(l))
	}
	return now, all, duties, nil
}

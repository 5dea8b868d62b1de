package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"

	"rouse/migrations"
)

// Bounds of PostgreSQL. None is set for a session: behind a pooler a session is somebody else's a moment later.
const (
	pgReaders  = 16
	pgWriters  = 2       // of a node; measured by bench/postgres
	pgAside    = 1       // for what nodes say of themselves: neither writers nor readers may keep that waiting
	oldestPG   = 14_0000 // the oldest server this program runs on
	pgConnect  = 5 * time.Second
	pgIdleLast = time.Second // a connection that was idle for longer is asked whether it lives

	// A statement that takes longer is ended by the server, and so is a transaction whose owner says nothing for so long: a node
	// that was frozen or cut off does not hold its locks for longer, and nobody else's acks, and with them polls, wait for longer.
	pgStatement = 15 * time.Second
	pgSilent    = 1500 * time.Millisecond
	// pgAnswer is how long this side waits for all answers of a transaction, or of one read: the server may be cut off.
	pgAnswer = 30 * time.Second
)

// postgres is a database of a PostgreSQL server.
type postgres struct {
	config *pgx.ConnConfig
}

func parsePostgres(dsn string) (postgres, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return postgres{}, unreadableDSN(err)
	}
	// Nothing is prepared under a name until it is known that the session is ours: a pooler gives each transaction another one.
	config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	config.StatementCacheCapacity = 0
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = pgConnect
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "rouse"
	}
	return postgres{config}, nil
}

func (p postgres) dialect() dialect {
	return dialect{
		files: migrations.Postgres(), goose: goose.DialectPostgres,
		begin: beginPostgres, commit: commitPostgres, travel: travelPostgres,
		hasTable: "SELECT COUNT(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = ?",
		newest:   "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM places",
		shared:   true,
		rebind:   (&dollars{}).rebind,
		writers:  pgWriters,
		open:     p.open,
		check:    checkPostgres,

		lockMigrations: lockMigrations, patient: p.patient,
		claim: func() (func(), error) { return func() {}, nil }, // many nodes may run on it

		storageTrouble: postgresTrouble,
		lost:           lostPostgres,
		raced:          func(err error) bool { return codeIn(err, "40001", "40P01", "23505") },
		spoils:         func(err error) bool { return sqlState(err) != "" },
	}
}

// open returns the pool that the writers take their connections from and the one for reads, which may write as well: a session
// that may not would be a session's setting.
func (p postgres) open(ctx context.Context, writers, readers int) (writes, reads *sqlx.DB, err error) {
	first := p.pool(1)
	err = checkVersion(ctx, first)
	if err == nil {
		p, err = p.preparing(ctx, first)
	}
	if err = errors.Join(err, first.Close()); err != nil {
		return nil, nil, fmt.Errorf("open the database: %w", plainly(err))
	}
	return p.pool(writers + pgAside), p.pool(orDefault(readers, pgReaders)), nil
}

func (p postgres) pool(size int) *sqlx.DB {
	db := sqlx.NewDb(stdlib.OpenDB(*p.config,
		stdlib.OptionAfterConnect(p.begun),
		// Called whenever a connection leaves the pool, and before anything is sent on it.
		stdlib.OptionShouldPing(func(_ context.Context, used stdlib.ShouldPingParams) bool {
			return setDeadline(used.Conn) != nil || used.IdleDuration > pgIdleLast
		})), "pgx")
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return db
}

// setDeadline gives the server pgAnswer for whatever is asked next.
func setDeadline(c *pgx.Conn) error { return c.PgConn().Conn().SetDeadline(time.Now().Add(pgAnswer)) }

func checkVersion(ctx context.Context, db *sqlx.DB) error {
	var version int
	if err := db.GetContext(ctx, &version, "SELECT current_setting('server_version_num')::int"); err != nil {
		return err
	}
	if version < oldestPG {
		return fmt.Errorf("PostgreSQL %d is too old: rouse needs %d or newer", version/10000, oldestPG/10000)
	}
	return nil
}

// checkPostgres refuses a server that answers before a commit is on disk.
func checkPostgres(ctx context.Context, conn *sqlx.Conn) error {
	var durable string
	if err := conn.GetContext(ctx, &durable, "SELECT current_setting('synchronous_commit')"); err != nil {
		return fmt.Errorf("ask for synchronous_commit: %w", err)
	}
	if durable == "off" {
		return errors.New("synchronous_commit is off for this role or database: what was accepted could be lost; set it to on")
	}
	return nil
}

// beginPG goes with the batch's first statement. The bounds go with the transaction, and leave nothing behind in the session.
var beginPG = []string{"BEGIN", fmt.Sprintf("SET LOCAL statement_timeout = %d", pgStatement.Milliseconds()),
	fmt.Sprintf("SET LOCAL idle_in_transaction_session_timeout = %d", pgSilent.Milliseconds())}

func beginPostgres(w *writer) error {
	w.waiting, w.trips, w.part = nil, 0, nil
	err := w.driver(func(c *pgx.Conn) error {
		if c.IsClosed() {
			return driver.ErrBadConn
		}
		return setDeadline(c)
	})
	if err != nil {
		return err
	}
	for _, query := range beginPG {
		w.send(errand{query: query})
	}
	return nil
}

// travelPostgres is one round trip; one more for statements that this connection has never seen.
func travelPostgres(w *writer, list []errand) error {
	batch := &pgx.Batch{}
	for _, e := range list {
		batch.Queue(e.query, e.args...)
	}
	return w.driver(func(c *pgx.Conn) error {
		answers := c.SendBatch(context.Background(), batch)
		for _, e := range list {
			if err := e.answered(answers); err != nil {
				err = errors.Join(err, answers.Close())
				if e.part != nil && !postgresTrouble(err) {
					err = errors.Join(e.part, err)
				}
				return err
			}
		}
		return answers.Close()
	})
}

// answered reads the answer to e, the next of answers.
func (e errand) answered(answers pgx.BatchResults) error {
	rows, err := answers.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if e.read == nil {
			continue
		}
		if err := e.read(rows); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil || e.done == nil {
		return err
	}
	return e.done(rows.CommandTag().String())
}

// errBeforeCommit marks what failed when the commit had not been sent.
var errBeforeCommit = errors.New("before the commit")

var errRolledBack = errors.New("the transaction was rolled back instead of committed")

// commitPostgres goes with the statements that wait: if one of them fails, the server passes over what follows it. It looks at the
// answer: a COMMIT of a transaction in which a statement failed is answered with ROLLBACK, and no error.
//
// After a silence in which the server may have ended the transaction, the commit goes alone: what fails before it is done again, and
// nobody has to be told that nobody knows.
func commitPostgres(w *writer) error {
	w.part = nil
	if time.Since(w.spoke) > pgSilent/2 {
		if err := w.travel(); err != nil {
			return errors.Join(errBeforeCommit, err)
		}
	}
	w.send(errand{query: "COMMIT", done: func(tag string) error {
		if tag != "COMMIT" {
			return errRolledBack
		}
		return nil
	}})
	return w.travel()
}

// driver calls do with the writer's connection as its driver knows it.
func (w *writer) driver(do func(*pgx.Conn) error) error {
	if w.conn == nil {
		return driver.ErrBadConn
	}
	return w.conn.Raw(func(c any) error { return do(c.(*stdlib.Conn).Conn()) })
}

// sqlState is the code of a server's error, "" for any other.
func sqlState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func codeIn(err error, codes ...string) bool {
	state := sqlState(err)
	for _, code := range codes {
		if state != "" && strings.HasPrefix(state, code) {
			return true
		}
	}
	return false
}

// postgresTrouble is dialect.storageTrouble: connections (08), what a role may or a database is called (28, 3D: set right without
// us), rollbacks (40, but for constraints), resources (53), cancelled and shut down (57), the system (58), damage (XX), read-only
// (25006), a lock that did not come (55P03).
func postgresTrouble(err error) bool {
	if state := sqlState(err); state != "" {
		return codeIn(err, "08", "28", "3D", "40001", "40003", "40P01", "53", "57", "58", "XX", "25006", "25P03", "55P03")
	}
	return unreachable(err)
}

// unreachable reports whether err is one of the connection.
func unreachable(err error) bool {
	var network net.Error
	var connecting *pgconn.ConnectError
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.As(err, &network) || errors.As(err, &connecting)
}

// lostPostgres is dialect.lost. It asks the connection: its errors have many forms.
func lostPostgres(conn *sqlx.Conn, err error) bool {
	if err == nil || conn == nil {
		return err != nil
	}
	closed := true
	_ = conn.Raw(func(c any) error { // without a connection it is not called
		closed = c.(*stdlib.Conn).Conn().IsClosed()
		return nil
	})
	return closed
}

// dollars rebinds statements, each once.
type dollars struct {
	known sync.Map // query to string
}

var question = regexp.MustCompile(`\?\d*`)

func (d *dollars) rebind(query string) string {
	if known, ok := d.known.Load(query); ok {
		return known.(string)
	}
	n := 0
	bound := question.ReplaceAllStringFunc(query, func(p string) string {
		if len(p) > 1 {
			return "$" + p[1:]
		}
		n++
		return "$" + strconv.Itoa(n)
	})
	d.known.Store(query, bound)
	return bound
}

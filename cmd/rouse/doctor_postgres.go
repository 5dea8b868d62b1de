package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"rouse/bus"
	"rouse/config"
	"rouse/messages"
	"rouse/providers"
	"rouse/store"
	"rouse/tokens"
)

const (
	// clocksApart is how much this machine's clock may differ from the database's before somebody should look.
	clocksApart = 5 * time.Second
	// busConnections is how many a node's bus takes to PostgreSQL.
	busConnections = 2
	// spareConnections is how many more should be left: for a node that replaces another before that has gone, and for people.
	spareConnections = 10
)

// postgres looks at the server, the schema, the keys, the nodes and the apps.
func (e examination) postgres(ctx context.Context) (all []found, tenants []tenant) {
	ring, err := tokens.ParseRing(string(e.cfg.MasterKeys))
	if err != nil { // the settings were checked
		return []found{broken("master_keys", "keys_unreadable", sentence(err.Error()), "Set ROUSE_MASTER_KEYS right.")}, nil
	}
	limited, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	i, err := store.Inspect(limited, store.InspectOptions{DSN: string(e.cfg.DSN), Ring: ring})
	if err != nil {
		return []found{e.unreached(err)}, nil
	}
	defer func() { _ = i.Close() }() // it was only read
	server, err := i.Server(limited)
	if err != nil {
		return []found{broken("database", "unusable", sentence(err.Error()), "Look at the server's log.")}, nil
	}
	schema, usable := e.schema(ctx, i)
	if schema.Reason == "older" && !server.MayCreate {
		schema = broken("schema", "forbidden", schema.Cause+" This role may not create tables, so rouse serve cannot bring it up to date.",
			"GRANT CREATE ON SCHEMA public to the role, or run rouse migrate up as one that may.")
	}
	if len(server.Forbidden) > 0 {
		schema, usable = forbidden(server.Forbidden), false
	}
	keys := proof(ctx, i, ring)
	all = append(all, e.serverFinding(server), durability(server), schema)
	if half := half(ctx, i); half != nil {
		all, usable = append(all, *half), false
	}
	all = append(all, keys, e.connections(server), databaseClock(server))
	if usable {
		all = append(all, e.nodes(ctx, i))
		tenants = e.tenants(ctx, i)
		if keys.Status == providers.FindingFail {
			tenants = gatherSealed(tenants)
		}
	}
	return all, tenants
}

// forbidden is a role that may not do what a node does.
func forbidden(tables []string) found {
	some := strings.Join(tables[:min(len(tables), 4)], ", ")
	if n := len(tables) - 4; n > 0 {
		some += fmt.Sprintf(" and %d more", n)
	}
	return broken("schema", "forbidden", fmt.Sprintf("This role may not read and write %s, so a node can accept nothing; apps were not looked at.", some),
		"Use the role that owns the tables, or GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES and USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public to this one.")
}

// unreached says why the server cannot be asked.
func (e examination) unreached(err error) found {
	const check, correct = "database", "correct --db (ROUSE_DB)"
	cause := sentence(err.Error())
	switch {
	case errors.Is(err, store.ErrNotAdmitted):
		return broken(check, "not_admitted", cause, "Make the role and its password (CREATE ROLE), let it in (pg_hba.conf), or "+correct+".")
	case errors.Is(err, store.ErrNoDatabase):
		return broken(check, "no_database", cause, "Make it (CREATE DATABASE), or "+correct+"; rouse serve makes the tables.")
	case errors.Is(err, store.ErrFull):
		return broken(check, "no_connection_left", cause, "Raise max_connections, end programs that hold some, or lower --db-conns (ROUSE_DB_CONNS) of the nodes.")
	case errors.Is(err, store.ErrUnreachable):
		return broken(check, "unreachable", cause, "Start the server, open the way to it (firewall, listen_addresses), or "+correct+".")
	}
	return broken(check, "unusable", cause, strings.ToUpper(correct[:1])+correct[1:]+".")
}

// serverFinding says what answers.
func (e examination) serverFinding(s store.Server) found {
	const check = "database"
	what := fmt.Sprintf("PostgreSQL %s at %s answers within %v", s.Version, e.cfg.DSN, max(s.RoundTrip.Round(100*time.Microsecond), 100*time.Microsecond))
	if s.Pooled {
		what += ", through a pooler"
	}
	switch {
	case s.TooOld:
		return broken(check, "too_old", what+", and rouse does not run on one so old.", "Move to PostgreSQL 14 or newer.")
	case s.Standby:
		return broken(check, "read_only", what+", and takes no writes: it is a standby, or set to read only.",
			"Name the primary in --db (ROUSE_DB); with several hosts, add target_session_attrs=read-write.")
	case s.Encoding != "UTF8":
		return doubtful(check, "encoding", what+fmt.Sprintf(", and the database is encoded as %s: some texts cannot be stored.", s.Encoding), "Make the database with ENCODING 'UTF8'.")
	}
	return fine(check, "%s.", what)
}

// durability says whether what was answered outlives a crash of the server.
func durability(s store.Server) found {
	const check = "durability"
	switch {
	case s.SynchronousCommit == "off":
		return broken(check, "not_durable", "synchronous_commit is off for this role or database: what was accepted could be lost, so rouse serve refuses to start.",
			"ALTER ROLE ... SET synchronous_commit = on (or the database, or postgresql.conf).")
	case s.Fsync != "on" || s.FullPageWrites != "on":
		return broken(check, "not_durable", fmt.Sprintf("fsync is %s and full_page_writes %s: a power cut can lose what was accepted, or damage the database.", s.Fsync, s.FullPageWrites),
			"Set both to on in postgresql.conf.")
	}
	return fine(check, "Commits wait for the disk (synchronous_commit is %s).", s.SynchronousCommit)
}

// connections says whether one more node finds room.
func (e examination) connections(s store.Server) found {
	const check = "connections"
	need := e.cfg.DBConns
	if e.cfg.Bus.Carrier == config.CarrierPostgres && e.cfg.Bus.URL == e.cfg.DSN {
		need += busConnections
	}
	have := fmt.Sprintf("%d of %d connections are taken; a node takes up to %d.", s.Used, s.Most, need)
	if s.Pooled {
		have = fmt.Sprintf("Behind the pooler %d of %d connections are taken; a node takes up to %d of the pooler's.", s.Used, s.Most, need)
	}
	const cure = "Raise max_connections (or the limit of the role or the database), lower --db-conns (ROUSE_DB_CONNS), or put a pooler in front."
	switch {
	case s.Pooled:
		return fine(check, "%s", have)
	case s.Left() < need:
		return doubtful(check, "none_left", have+" One more would not find all of its own.", cure)
	case s.Left() < need+spareConnections:
		return doubtful(check, "few_left", have+" One more leaves hardly any.", cure)
	}
	return fine(check, "%s", have)
}

// databaseClock compares this machine's clock with the server's.
func databaseClock(s store.Server) found {
	const check = "database_clock"
	if s.Ahead.Abs() <= clocksApart+s.RoundTrip/2 {
		return fine(check, "The clocks of this machine and of the database are within %v.", clocksApart)
	}
	where := "behind"
	if s.Ahead < 0 {
		where = "ahead of"
	}
	return doubtful(check, "clock_skew", fmt.Sprintf("The clock of this machine is %v %s that of the database.", s.Ahead.Abs().Round(time.Second), where),
		"Run an NTP client on both: lives and retries of messages are reckoned by the clocks of the nodes that handle them.")
}

// nodes says who is alive on the database.
func (e examination) nodes(ctx context.Context, i *store.Inspection) found {
	const check = "nodes"
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	now, all, duties, err := i.Nodes(ctx)
	if err != nil {
		return broken(check, "unreadable", sentence(err.Error()), "See the findings on the database.")
	}
	alive := 0
	for _, n := range all {
		if now.Sub(n.BeatAt).Abs() < messages.NodeLife {
			alive++
		}
	}
	idle := 0
	for _, d := range duties {
		if !d.Held {
			idle++
		}
	}
	switch {
	case alive == 0:
		return doubtful(check, "none", "No node is alive on this database.", "Start one: rouse serve, with these same settings.")
	case alive > 1 && e.cfg.Bus.Carrier == config.CarrierMemory:
		return broken(check, "alone", fmt.Sprintf("%d nodes are alive, and the bus of these settings is memory: they hear nothing of each other, so that messages wait for up to 10 s.", alive),
			"Leave out --bus (ROUSE_BUS), or name one that all nodes share.")
	case len(duties) == 0 || idle > 0:
		return doubtful(check, "no_duty", fmt.Sprintf("%s alive, and nobody climbs the ladder of retries for all.", areAlive(alive)),
			"Run doctor again: a node takes that over within 15 s. If it stays, look at the nodes' logs.")
	}
	return fine(check, "%s alive; %s climbs the ladder of retries for all.", areAlive(alive), duties[0].Node)
}

func areAlive(n int) string {
	if n == 1 {
		return "1 node is"
	}
	return fmt.Sprintf("%d nodes are", n)
}

// busFinding tries the way of hints between nodes; ok is false where there is none to try.
func (e examination) busFinding(ctx context.Context) (f found, ok bool) {
	const check, setting = "bus", "--bus (ROUSE_BUS)"
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	var took time.Duration
	var pooled bool
	var err error
	at := e.cfg.Bus.URL
	switch e.cfg.Bus.Carrier {
	case config.CarrierPostgres:
		took, pooled, err = bus.ProbePostgres(ctx, string(at))
	case config.CarrierNATS:
		took, err = bus.ProbeNATS(ctx, string(at))
	default:
		if !e.cfg.DSN.IsPostgres() {
			return found{}, false
		}
		return doubtful(check, "memory", "The bus is the memory of one process: a second node on this database would hear nothing of this one.",
			"That is right for one node. For several leave out "+setting+"."), true
	}
	switch {
	case errors.Is(err, bus.ErrDeaf) && pooled:
		return broken(check, "pooler", fmt.Sprintf("What one node says at %s no other hears: a pooler in transaction mode stands between.", at),
			"Give the bus a way to the server itself: "+setting+"=postgres://..., or a pool in session mode, or NATS. Until then messages wait for up to 10 s."), true
	case errors.Is(err, bus.ErrDeaf):
		return broken(check, "deaf", fmt.Sprintf("What one node says at %s no other hears.", at), "Look at the server's log, and at what stands between."), true
	case err != nil:
		return broken(check, "unreachable", sentence(fmt.Sprintf("the bus at %s cannot be used: %v", at, err)),
			"Start its server, open the way to it, or correct "+setting+". Until then messages wait for up to 10 s."), true
	}
	return fine(check, "What one node says at %s another hears within %v.", at, max(took.Round(100*time.Microsecond), 100*time.Microsecond)), true
}

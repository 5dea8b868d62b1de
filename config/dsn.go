package config

import (
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"

	"rouse/store"
)

// DSN says where a database or a bus is. It prints without passwords, and without the query of a URL, in which one may stand as well.
type DSN string

// String returns the DSN as it may be shown.
func (d DSN) String() string {
	if d.IsPostgres() {
		return bare(string(d), true)
	}
	if !strings.Contains(string(d), "://") {
		return string(d) // sqlite:PATH, a word, or nothing
	}
	var servers []string
	for one := range strings.SplitSeq(string(d), ",") {
		servers = append(servers, bare(one, false))
	}
	return strings.Join(servers, ",")
}

// bare is a URL's scheme, user, host and path, without the password. A user alone is one only if users says so, else a token.
func bare(u string, users bool) string {
	scheme, user, place, query := cutURL(u)
	name, _, hasPassword := strings.Cut(user, ":")
	switch {
	case strings.Contains(place, "@"): // it may hold the end of a password
		return scheme + "://[redacted]"
	case user == "":
		return scheme + "://" + place + folderOf(query)
	case !hasPassword && !users:
		name = "[redacted]"
	}
	return scheme + "://" + name + "@" + place + folderOf(query)
}

// cutURL cuts a URL as PostgreSQL does, which takes a user and a password with a question mark in it; place is host and path.
func cutURL(u string) (scheme, user, place, query string) {
	scheme, rest, _ := strings.Cut(u, "://")
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		user, rest = rest[:i], rest[i+1:]
	}
	place, query, _ = strings.Cut(rest, "?")
	return scheme, user, place, query
}

// folderOf is the query without all but the host, which is how a Unix socket is named.
func folderOf(query string) string {
	values, err := url.ParseQuery(query)
	if err != nil || values.Get("host") == "" {
		return ""
	}
	return "?host=" + values.Get("host")
}

// GoString returns the DSN as it may be shown.
func (d DSN) GoString() string { return fmt.Sprintf("%q", d.String()) }

// LogValue returns the DSN as it may be shown.
func (d DSN) LogValue() slog.Value { return slog.StringValue(d.String()) }

// IsPostgres reports whether it names a PostgreSQL database.
func (d DSN) IsPostgres() bool {
	return strings.HasPrefix(string(d), "postgres://") || strings.HasPrefix(string(d), "postgresql://")
}

// Carrier is who carries hints between nodes.
type Carrier string

// The carriers. With CarrierMemory a node is alone.
const (
	CarrierMemory   Carrier = "memory"
	CarrierPostgres Carrier = "postgres"
	CarrierNATS     Carrier = "nats"
)

// Bus is how nodes tell each other to look again.
type Bus struct {
	Carrier Carrier
	// URL is where it is; empty for CarrierMemory. For PostgreSQL it is the database's own DSN unless another was given.
	URL DSN
}

// db returns the DSN, and the path of its file if it has one.
func (c *checker) db(value DSN) (dsn DSN, path string) {
	scheme, rest, found := strings.Cut(string(value), ":")
	switch {
	case found && scheme == "sqlite" && strings.HasPrefix(rest, ":"):
		c.bad("db", "names no file: a database in memory would lose what it promised; use sqlite:PATH, such as sqlite:rouse.db")
	case found && scheme == "sqlite" && rest != "" && !strings.HasPrefix(rest, "//") && !strings.ContainsAny(rest, "?#"):
		return value, rest
	case value.IsPostgres():
		if c.postgres("db", value) {
			return value, ""
		}
	default:
		// The value may be a DSN with a password in it: it is not repeated.
		c.bad("db", "is not of the form sqlite:PATH, such as sqlite:rouse.db, or %s", postgresForm)
	}
	return "", ""
}

const (
	postgresForm = "postgres://user:password@host:5432/name"
	natsForm     = "nats://host:4222 or tls://host:4222, several separated by commas"
)

// postgres checks a DSN of PostgreSQL.
func (c *checker) postgres(flag string, value DSN) bool {
	_, _, place, query := cutURL(string(value))
	_, name, _ := strings.Cut(place, "/")
	values, _ := url.ParseQuery(query) // what cannot be read is told of below
	switch err := store.CheckDSN(string(value)); {
	case strings.Contains(place, "@"):
		c.bad(flag, "has an @ or a / in its user or password; write %%40 and %%2F there")
	case err != nil:
		c.bad(flag, "cannot be used: %v", err)
	case name == "" && values.Get("dbname") == "" && values.Get("database") == "":
		c.bad(flag, "names no database; it is %s", postgresForm)
	default:
		return true
	}
	return false
}

// bus reads the bus of a node on db; db is empty if that is wrong itself.
func (c *checker) bus(value, db DSN) Bus {
	carrier, url, ok := c.carrier(value)
	switch {
	case !ok || db == "":
		return Bus{}
	case carrier == "" && db.IsPostgres():
		return Bus{CarrierPostgres, db}
	case carrier == "" || carrier == CarrierMemory:
		return Bus{Carrier: CarrierMemory}
	case !db.IsPostgres():
		c.bad("bus", "is %s, and the database is SQLite, on which one node runs alone: leave it out, or name PostgreSQL in --db (%s)", carrier, Env("db"))
		return Bus{}
	case url == "":
		return Bus{carrier, db}
	}
	return Bus{carrier, url}
}

// carrier reads the setting alone; carrier is empty for auto, url where none was given.
func (c *checker) carrier(value DSN) (carrier Carrier, url DSN, ok bool) {
	scheme, _, _ := strings.Cut(string(value), "://")
	switch {
	case value == "auto":
		return "", "", true
	case value == DSN(CarrierMemory) || value == DSN(CarrierPostgres):
		return Carrier(value), "", true
	case value.IsPostgres():
		return CarrierPostgres, value, c.postgres("bus", value)
	case slices.Contains([]string{"nats", "tls"}, scheme) && isNATS(value):
		return CarrierNATS, value, true
	case strings.HasPrefix(string(value), "nats") || strings.HasPrefix(string(value), "tls"):
		c.bad("bus", "is not of the form %s", natsForm)
	default:
		c.bad("bus", "is not one of auto, memory, postgres, %s, %s", postgresForm, natsForm)
	}
	return "", "", false
}

// isNATS reports whether the value is a list of NATS servers.
func isNATS(value DSN) bool {
	for one := range strings.SplitSeq(string(value), ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || (u.Scheme != "nats" && u.Scheme != "tls") || u.Hostname() == "" || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
			return false
		}
	}
	return true
}

package store

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What a statement's text says of where its rows lie. The checker knows just enough SQL for the statements of this package: it
// finds the distributed tables, follows equalities from their keys, and takes a key for given if it meets a parameter or a list of
// them. A join with a list is not enough: Citus asks every machine then.

// placed is a distributed table in a statement.
type placed struct {
	scope *scope
	table string
	alias string
	outer bool // joined to a list, outer, before any table: its rows may be missing
}

// scope is a query within a statement.
type scope struct {
	above  *scope
	tokens []string
	refs   []placed
	// made are aliases of what is no table: functions, subqueries, common table expressions.
	made    map[string]bool
	recurs  bool // its first source is made, and not read from any table
	inserts string
	columns []string
	values  bool
	sub     []*scope
}

var sqlTokens = regexp.MustCompile(`'(?:[^']|'')*'|\$\d+|[a-z_][a-z0-9_]*|\d+|<>|<=|>=|->>|\|\||[^\s\w]`)

// endings are words that no alias is.
var endings = []string{"where", "set", "on", "join", "left", "inner", "cross", "order", "group", "limit", "returning", "values", "select", "union", "using", "from",
	"default", "do", "conflict", "having", "for"}

type sqlParser struct {
	tokens []string
	at     int
	ctes   map[string]bool
	all    []*scope
}

// parseSQL returns the queries a statement is made of.
func parseSQL(query string) []*scope {
	p := &sqlParser{tokens: sqlTokens.FindAllString(strings.ToLower(query), -1), ctes: map[string]bool{}}
	p.query(nil)
	return p.all
}

func (p *sqlParser) peek(n int) string {
	if p.at+n < len(p.tokens) {
		return p.tokens[p.at+n]
	}
	return ""
}

// query reads up to the parenthesis that ends it.
func (p *sqlParser) query(above *scope) *scope {
	s := &scope{above: above, made: map[string]bool{}}
	p.all = append(p.all, s)
	for depth := 0; p.at < len(p.tokens); {
		switch t := p.peek(0); {
		case t == "(" && slices.Contains([]string{"select", "with", "update", "delete", "insert"}, p.peek(1)):
			p.at++
			s.sub = append(s.sub, p.query(s))
			s.tokens = append(s.tokens, "(sub)")
		case t == "(":
			depth++
			p.take(s)
		case t == ")" && depth == 0:
			p.at++
			return s
		case t == ")":
			depth--
			p.take(s)
		case t == "with":
			p.take(s)
			p.with(s)
		case t == "union" && depth == 0:
			p.at++
			if above != nil {
				above.sub = append(above.sub, s)
			}
			s = &scope{above: above, made: map[string]bool{}}
			p.all = append(p.all, s)
		case t == "using" && p.peek(1) != "(", t == "from" && !slices.Contains([]string{"distinct"}, last(s.tokens)), t == "join", t == "update" && last(s.tokens) != "do", t == "into":
			p.source(s)
		default:
			p.take(s)
		}
	}
	return s
}

func last(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[len(list)-1]
}

func (p *sqlParser) take(s *scope) {
	s.values = s.values || p.tokens[p.at] == "values"
	s.tokens = append(s.tokens, p.tokens[p.at])
	p.at++
}

// with notes the names of common table expressions; their queries are read as any other.
func (p *sqlParser) with(s *scope) {
	if p.peek(0) == "recursive" {
		p.take(s)
	}
	for depth, i := 0, p.at; i < len(p.tokens); i++ {
		switch p.tokens[i] {
		case "(":
			depth++
		case ")":
			depth--
		case "as":
			if depth == 0 && p.tokens[i+1] == "(" {
				name := i - 1
				if p.tokens[name] == ")" {
					for p.tokens[name] != "(" {
						name--
					}
					name--
				}
				p.ctes[p.tokens[name]] = true
			}
		case "select", "insert", "update", "delete":
			if depth == 0 {
				return
			}
		}
	}
}

// source reads what follows from, join, update or into.
func (p *sqlParser) source(s *scope) {
	verb, before := p.peek(0), last(s.tokens)
	p.take(s)
	if p.peek(0) == "lateral" {
		p.take(s)
	}
	name, made := p.peek(0), true
	switch {
	case name == "(":
		p.at++
		s.sub = append(s.sub, p.query(s))
		name = "(sub)"
	case p.peek(1) == "(" && verb != "into":
		p.at++
		p.skip()
		if p.peek(0) == "with" && p.peek(1) == "ordinality" {
			p.at += 2
		}
	default:
		p.at++
		made = p.ctes[name]
	}
	s.tokens = append(s.tokens, "(source)")
	alias := p.alias(name)
	if verb == "from" && len(s.refs) == 0 && len(s.made) == 0 {
		s.recurs = made && name != "(sub)" && !p.ctes[name]
	}
	if made {
		s.made[alias] = true
		return
	}
	s.refs = append(s.refs, placed{s, name, alias, verb == "join" && before == "left" && s.recurs && len(s.refs) == 0})
	if verb == "into" {
		s.inserts = name
		for p.at++; p.peek(0) != ")" && p.at < len(p.tokens); p.at++ {
			s.columns = append(s.columns, p.peek(0))
		}
		p.at++
	}
}

// skip passes over what stands in parentheses.
func (p *sqlParser) skip() {
	for depth := 0; p.at < len(p.tokens); {
		switch p.tokens[p.at] {
		case "(":
			depth++
		case ")":
			depth--
		}
		p.at++
		if depth == 0 {
			return
		}
	}
}

func (p *sqlParser) alias(name string) string {
	if p.peek(0) == "as" {
		p.at++
	}
	if a := p.peek(0); a != "" && regexp.MustCompile(`^[a-z_]`).MatchString(a) && !slices.Contains(endings, a) {
		p.at++
		if p.peek(0) == "(" && name != a { // the columns of what was made
			if made := regexp.MustCompile(`^[a-z_]`); made.MatchString(p.peek(1)) {
				p.skip()
			}
		}
		return a
	}
	return name
}

// resolve finds whose column it is: an alias and its scope.
func (s *scope) resolve(column string) (owner *scope, alias string) {
	name, _, qualified := strings.Cut(column, ".")
	if !qualified {
		var keys []string
		for _, r := range s.refs {
			if at, ok := placementOf(r.table); ok && at.column == column && (r.table != s.inserts || len(s.refs) == 1) {
				keys = append(keys, r.alias)
			}
		}
		if len(keys) == 1 {
			return s, keys[0]
		}
		return nil, ""
	}
	for at := s; at != nil; at = at.above {
		if at.made[name] || slices.ContainsFunc(at.refs, func(r placed) bool { return r.alias == name }) {
			return at, name
		}
	}
	return nil, ""
}

func placementOf(table string) (placement, bool) {
	for _, p := range placements {
		if p.table == table && p.column != "" {
			return p, true
		}
	}
	return placement{}, false
}

// group is the table beside which a table's rows lie.
func (p placement) group() string {
	if p.beside != "" {
		return p.beside
	}
	return p.table
}

// keys returns which keys of the statement's distributed tables are given, as "scope alias".
func keys(all []*scope) map[string]bool {
	id := func(s *scope, alias string) string { return fmt.Sprintf("%p %s", s, alias) }
	given, same := map[string]bool{}, [][2]string{}
	for _, s := range all {
		for i, t := range s.tokens {
			if t != "=" && t != "in" {
				continue
			}
			left, right := s.column(i, -1), s.column(i, +1)
			owner, alias := s.keyOf(left)
			if owner != nil && (t == "in" || isGiven(s.tokens[i+1:])) {
				given[id(owner, alias)] = true
				continue
			}
			other, otherAlias := s.keyOf(right)
			if owner != nil && other != nil {
				same = append(same, [2]string{id(owner, alias), id(other, otherAlias)})
			}
		}
	}
	for range same {
		for _, pair := range same {
			given[pair[0]] = given[pair[0]] || given[pair[1]]
			given[pair[1]] = given[pair[1]] || given[pair[0]]
		}
	}
	for _, s := range all {
		for _, r := range s.refs {
			if at, ok := placementOf(r.table); ok && s.inserts == r.table && slices.Contains(s.columns, at.column) {
				given[id(s, r.alias)] = true
			}
		}
	}
	out := map[string]bool{}
	for _, s := range all {
		for _, r := range s.refs {
			if _, ok := placementOf(r.table); ok {
				out[s.label(r)] = given[id(s, r.alias)]
			}
		}
	}
	return out
}

func (s *scope) label(r placed) string { return fmt.Sprintf("%s as %s", r.table, r.alias) }

// column is the one beside an operator.
func (s *scope) column(i, way int) string {
	at := func(n int) string {
		if n >= 0 && n < len(s.tokens) {
			return s.tokens[n]
		}
		return ""
	}
	one := at(i + way)
	if at(i+2*way) == "." {
		if way < 0 {
			return at(i-3) + "." + one
		}
		return one + "." + at(i+3)
	}
	return one
}

// keyOf is resolve for columns that tables are distributed by.
func (s *scope) keyOf(column string) (*scope, string) {
	owner, alias := s.resolve(column)
	if owner == nil {
		return nil, ""
	}
	_, name, qualified := strings.Cut(column, ".")
	if !qualified {
		name = column
	}
	for _, r := range owner.refs {
		if at, ok := placementOf(r.table); ok && r.alias == alias && at.column == name {
			return owner, alias
		}
	}
	return nil, ""
}

// isGiven reports whether what follows an equals sign is a parameter, or a list of them.
func isGiven(tokens []string) bool {
	for _, t := range tokens {
		switch {
		case strings.HasPrefix(t, "$"):
			return true
		case t == "any", t == "cast", t == "(":
		default:
			return false
		}
	}
	return false
}

// faults lists what a distributed database would make of a statement: keys that are missing, and what Citus refuses.
func faults(query string) (list []string) {
	all := parseSQL(query)
	for name, ok := range keys(all) {
		if !ok {
			list = append(list, "no key for "+name)
		}
	}
	for _, s := range all {
		if s.inserts != "" && s.values && len(s.sub) > 0 && isPlaced(s.inserts) {
			list = append(list, "subquery in an INSERT of values")
		}
		groups := map[string]bool{}
		for _, r := range s.refs {
			at, ok := placementOf(r.table)
			if !ok {
				continue
			}
			groups[at.group()] = true
			if r.outer {
				list = append(list, "outer join of a list with "+r.table)
			}
			for i := range s.tokens {
				if s.inserts == "" && s.tokens[i] == "set" && s.column(i, +1) == at.column {
					list = append(list, "a row of "+r.table+" would move")
				}
			}
		}
		if len(groups) > 1 {
			list = append(list, "join of tables that do not lie beside each other")
		}
		for _, sub := range s.sub {
			for _, r := range sub.refs {
				if at, ok := placementOf(r.table); ok && sub.looksUp() && len(groups) > 0 && !groups[at.group()] {
					list = append(list, "a subquery that speaks of the query around it reads "+r.table+", which lies elsewhere")
				}
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func isPlaced(table string) bool { _, ok := placementOf(table); return ok }

// looksUp reports whether a subquery speaks of the query around it.
func (s *scope) looksUp() bool {
	for i, t := range s.tokens {
		if t == "." && i > 0 {
			if owner, _ := s.resolve(s.tokens[i-1] + ".x"); owner != nil && owner != s {
				return true
			}
		}
	}
	return false
}

// The checker must find what it looks for, and must not find what is not there.
func TestTheCheckerKnowsAKeyWhenItSeesOne(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"SELECT seq FROM deliveries WHERE device = $1":                                                                                                                                           "",
		"SELECT d.seq FROM inboxes i LEFT JOIN deliveries d ON d.device = i.device AND d.seq > $1 WHERE i.device = $2":                                                                           "",
		"SELECT device FROM inboxes WHERE device = ANY (CAST($1 AS TEXT[]))":                                                                                                                     "",
		"SELECT device FROM inboxes WHERE device IN ($1, $2)":                                                                                                                                    "",
		"UPDATE inboxes AS i SET head = n.head FROM unnest(CAST($1 AS TEXT[])) AS n (device, head) WHERE i.device = n.device AND i.device = ANY (CAST($1 AS TEXT[]))":                            "",
		"INSERT INTO wakes (device, at) VALUES ($1, $2) RETURNING id":                                                                                                                            "",
		"WITH RECURSIVE chain (id) AS (SELECT last_wake FROM inboxes WHERE device = $1 UNION SELECT w.previous FROM chain c JOIN wakes w ON w.id = c.id AND w.device = $1) SELECT id FROM chain": "",
		"SELECT a FROM devices d CROSS JOIN (SELECT MAX(seq) AS m FROM deliveries WHERE device = $1) p WHERE d.id = $1":                                                                          "",
		"SELECT q.n FROM unnest(CAST($1 AS TEXT[])) WITH ORDINALITY AS q (device, n) JOIN devices d ON d.id = q.device AND d.id = ANY ($1) LEFT JOIN gaps g ON g.device = d.id":                  "",
		"SELECT id FROM apps WHERE id = $1": "",
		"DELETE FROM gaps WHERE device = $1 AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.device = $1)": "",

		"INSERT INTO gaps (device, lost) SELECT device, $2 FROM inboxes WHERE device = $1 ON CONFLICT (device) DO UPDATE SET lost = excluded.lost": "",
		"SELECT seq FROM deliveries WHERE seq > $1":                                                                           "no key for deliveries as deliveries",
		"SELECT d.seq FROM deliveries d JOIN inboxes i ON i.device = d.device WHERE d.seq > $1":                               "no key for deliveries as d; no key for inboxes as i",
		"SELECT d.seq FROM deliveries d JOIN inboxes i ON i.app = d.app WHERE d.device = $1":                                  "no key for inboxes as i",
		"UPDATE devices SET token = NULL WHERE token_hash = $1":                                                               "no key for devices as devices",
		"UPDATE inboxes SET device = $2 WHERE device = $1":                                                                    "a row of inboxes would move",
		"INSERT INTO wakes (device, previous) VALUES ($1, (SELECT last_wake FROM inboxes WHERE device = $1))":                 "subquery in an INSERT of values",
		"INSERT INTO wakes (at) VALUES ($1)":                                                                                  "no key for wakes as wakes",
		"SELECT m.body FROM deliveries d LEFT JOIN messages m ON m.id = d.message WHERE d.device = $1":                        "join of tables that do not lie beside each other; no key for messages as m",
		"SELECT q.device FROM unnest(CAST($1 AS TEXT[])) AS q (device) LEFT JOIN devices d ON d.id = q.device":                "no key for devices as d; outer join of a list with devices",
		"SELECT id FROM messages WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.device = messages.id)":      "a subquery that speaks of the query around it reads deliveries, which lies elsewhere",
		"UPDATE inboxes AS i SET head = n.head FROM unnest(CAST($1 AS TEXT[])) AS n (device, head) WHERE i.device = n.device": "no key for inboxes as i",
		"DELETE FROM gaps AS g USING unnest(CAST($1 AS TEXT[])) AS a (device) WHERE g.device = a.device":                      "no key for gaps as g",
		"DELETE FROM deliveries WHERE seq IN ($1, $2)":                                                                        "no key for deliveries as deliveries",
	} {
		if got := strings.Join(faults(query), "; "); got != want {
			t.Errorf("%s\n got %q\nwant %q", query, got, want)
		}
	}
}

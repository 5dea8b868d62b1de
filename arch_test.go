package rouse_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// ring is how high a room stands: it may import what stands lower.
var ring = map[string]int{
	"":                       0, // this package: the contract, embedded
	"fault":                  0,
	"ident":                  0,
	"messages":               1,
	"tokens":                 1,
	"providers":              1,
	"store":                  2,
	"migrations":             1, // embedded files, read by store
	"bus":                    2,
	"providers/wire":         2, // what apns and fcm share: connections under a bound
	"providers/apns":         2,
	"providers/fcm":          2,
	"providers/sim":          2,
	"providers/providertest": 2,
	"client":                 2,
	"api":                    3,
	"worker":                 3,
	"webhooks":               3,
	"cluster":                3,
	"config":                 4,
	"cmd/rouse":              4,
	"bench":                  5,
	"internal/testkit":       5,
}

// sameRing lists the imports between rooms of one ring that are meant.
var sameRing = map[string][]string{
	"cmd/rouse":      {"config"},
	"providers/apns": {"providers/wire"},
	"providers/fcm":  {"providers/wire"},
	// A suite that tests import, and nobody else.
	"providers/providertest": {"providers/sim"},
}

// inTests lists what a room may import besides the rings below it, in tests only.
var inTests = map[string][]string{
	"providers/wire": {"providers/sim", "providers/providertest"},
	"providers/apns": {"providers/sim", "providers/providertest"},
	"providers/fcm":  {"providers/sim", "providers/providertest"},
	"client":         {"api", "store", "bus"},
	"api":            {"webhooks"},
}

// home says where alone an outside package may be imported; a prefix ending in
// a slash covers what lies under it.
var home = map[string][]string{
	"github.com/jmoiron/sqlx":             {"store"},
	"database/sql":                        {"store"},
	"modernc.org/sqlite":                  {"store"},
	"github.com/jackc/pgx":                {"store", "bus", "internal/testkit"},
	"github.com/nats-io":                  {"bus"},
	"github.com/pressly/goose":            {"store"},
	"github.com/go-chi/chi":               {"api"},
	"github.com/sideshow/apns2":           {"providers/apns"},
	"firebase.google.com/go":              {"providers/fcm"},
	"golang.org/x/oauth2":                 {"providers/fcm"},
	"google.golang.org/api":               {"providers/fcm"},
	"github.com/alecthomas/kong":          {"cmd/rouse"},
	"github.com/standard-webhooks":        {"webhooks"},
	"software.sslmate.com/src/go-pkcs12":  {"providers/apns", "providers/sim"},
	"github.com/prometheus/client_golang": {"store", "worker", "webhooks", "api", "cluster", "cmd/rouse", "bench"},
}

// pure rooms hold rules: the standard library without I/O, and few others.
var pure = map[string][]string{
	"fault":     {},
	"ident":     {"github.com/google/uuid"},
	"messages":  {},
	"tokens":    {},
	"providers": {},
}

var impure = []string{"os", "io/fs", "net", "net/http", "database/sql", "os/exec", "syscall"}

var forbiddenRooms = []string{
	"models", "types", "utils", "util", "common", "helpers", "services", "repository", "interfaces",
	"mocks", "pkg", "clock", "logger", "middleware", "queue",
}

type source struct {
	path string
	room string
	test bool
	file *ast.File
}

// sources is every Go file of the module.
func sources(t *testing.T) []source {
	t.Helper()
	all, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// parsed reads the files once for all tests, which only look at them.
var parsed = sync.OnceValues(func() (all []source, err error) {
	err = filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); p != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		slash := filepath.ToSlash(p)
		all = append(all, source{path: slash, room: roomOf(path.Dir(slash)), test: strings.HasSuffix(p, "_test.go"), file: file})
		return nil
	})
	return all, err
})

// roomOf names the room a folder belongs to: the longest name in ring that is
// the folder or above it.
func roomOf(dir string) string {
	if dir == "." {
		return ""
	}
	for d := dir; d != "." && d != "/"; d = path.Dir(d) {
		if _, known := ring[d]; known {
			return d
		}
	}
	return dir
}

func imports(s source) []string {
	var list []string
	for _, spec := range s.file.Imports {
		list = append(list, strings.Trim(spec.Path.Value, `"`))
	}
	return list
}

func TestImportsPointDown(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if _, known := ring[s.room]; !known {
			t.Errorf("%s: room %q has no ring; add it to the house on purpose or not at all", s.path, s.room)
			continue
		}
		for _, imp := range imports(s) {
			if imp != "rouse" && !strings.HasPrefix(imp, "rouse/") {
				continue
			}
			to := roomOf(strings.TrimPrefix(strings.TrimPrefix(imp, "rouse"), "/"))
			if imp == "rouse" {
				to = ""
			}
			if !allowed(s, to) {
				t.Errorf("%s: %q (ring %d) may not import %q (ring %d)", s.path, s.room, ring[s.room], to, ring[to])
			}
		}
	}
}

// allowed decides one arrow. api and worker know ring 2 only from their tests,
// which meet the real store; nobody but tests and the command knows the sim.
func allowed(s source, to string) bool {
	from := s.room
	switch {
	case from == to, slices.Contains(sameRing[from], to):
		return true
	case s.test && slices.Contains(inTests[from], to):
		return true
	case to == "providers/sim" || to == "providers/providertest":
		return s.test && ring[from] > 2 || from == "cmd/rouse" || from == "bench"
	case ring[from] == 3 && ring[to] == 2:
		return s.test
	case to == "internal/testkit":
		return s.test
	}
	return ring[from] > ring[to]
}

func TestOutsidePackagesHaveOneHome(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		for _, imp := range imports(s) {
			for pkg, rooms := range home {
				under := imp == pkg || strings.HasPrefix(imp, pkg+"/")
				if under && !slices.Contains(rooms, s.room) && !s.test {
					t.Errorf("%s: %s belongs in %v alone", s.path, imp, rooms)
				}
			}
		}
	}
}

func TestVocabularyIsPure(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		outside, isPure := pure[s.room]
		if !isPure || s.test {
			continue
		}
		for _, imp := range imports(s) {
			std := !strings.Contains(strings.SplitN(imp, "/", 2)[0], ".")
			ours := imp == "rouse" || strings.HasPrefix(imp, "rouse/")
			if slices.Contains(impure, imp) || (!std && !ours && !slices.Contains(outside, imp)) {
				t.Errorf("%s: %s does I/O or is no part of the vocabulary", s.path, imp)
			}
		}
	}
}

func TestOnlyTheCommandReadsTheEnvironment(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		// bench is a program of its own, and hands its environment to the server it measures; testkit is told there
		// which database server to use, by who runs the tests.
		if s.room == "cmd/rouse" || s.room == "bench" || s.room == "internal/testkit" || s.test {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if ok && pkg.Name == "os" && slices.Contains([]string{"Getenv", "LookupEnv", "Environ", "Setenv"}, sel.Sel.Name) {
				t.Errorf("%s: os.%s belongs in cmd/rouse alone", s.path, sel.Sel.Name)
			}
			return true
		})
	}
}

func TestNoInitAndNoForbiddenRooms(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		for _, part := range strings.Split(path.Dir(s.path), "/") {
			if slices.Contains(forbiddenRooms, part) {
				t.Errorf("%s: a room named %q promises nothing", s.path, part)
			}
		}
		for _, decl := range s.file.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: init runs behind everybody's back; do it in a constructor", s.path)
			}
		}
	}
}

func TestOnePackageDocARoom(t *testing.T) {
	t.Parallel()
	docs := map[string][]string{}
	for _, s := range sources(t) {
		dir := path.Dir(s.path)
		if s.test {
			continue
		}
		if _, seen := docs[dir]; !seen {
			docs[dir] = nil
		}
		if s.file.Doc != nil && !isGenerated(s.file) {
			docs[dir] = append(docs[dir], s.path)
		}
	}
	for dir, files := range docs {
		if len(files) != 1 {
			t.Errorf("%s: want one file with the package's doc comment, have %v", dir, files)
		}
	}
}

func isGenerated(f *ast.File) bool { return ast.IsGenerated(f) }

// TestRulesBite feeds the rules an arrow of each kind that must be refused, so
// that a rule that lets everything through does not pass for a kept one.
func TestRulesBite(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from string
		test bool
		to   string
	}{
		{from: "api", to: "worker"},
		{from: "worker", to: "api"},
		{from: "worker", test: true, to: "api"},
		{from: "api", to: "store"},
		{from: "worker", to: "bus"},
		{from: "worker", to: "cluster"},
		{from: "webhooks", to: "store"},
		{from: "api", to: "webhooks"},
		{from: "cluster", to: "worker"},
		{from: "cluster", to: "store"},
		{from: "store", to: "bus"},
		{from: "store", to: "providers/apns"},
		{from: "providers/fcm", to: "store"},
		{from: "providers/fcm", to: "providers/sim"},
		{from: "providers/wire", to: "providers/providertest"},
		{from: "messages", to: "tokens"},
		{from: "fault", to: "ident"},
		{from: "ident", to: "messages"},
		{from: "config", to: "cmd/rouse"},
		{from: "api", to: "config"},
		{from: "api", to: "internal/testkit"},
	} {
		if allowed(source{room: c.from, test: c.test}, c.to) {
			t.Errorf("%s -> %s (test %v) was let through", c.from, c.to, c.test)
		}
	}
}

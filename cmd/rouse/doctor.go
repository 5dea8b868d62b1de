package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"rouse/config"
	"rouse/providers"
	"rouse/store"
	"rouse/tokens"
)

// doctorLimit bounds the whole of rouse doctor; what is not known by then is told as not known.
const doctorLimit = 25 * time.Second

type doctorCmd struct {
	settings
	output
	App     string `help:"Look at this app alone: its id, or its name exactly." placeholder:"APP"`
	Offline bool   `help:"Reach for nothing but the database and the bus: neither endpoints nor credentials are tried."`
	JSON    bool   `name:"json" help:"Write {\"ok\", \"findings\"} as JSON, as -o json does."`
}

// Run looks at everything that serve needs with these settings, whether it runs or not, and changes nothing. It fails if a
// check did; settings that cannot be are a usage error.
func (c *doctorCmd) Run(ctx context.Context, term *terminal) error {
	ctx, cancel := context.WithTimeout(ctx, doctorLimit)
	defer cancel()
	dev := c.lookAtDev(ctx, term)
	cfg, wrong := c.check()
	var all []found
	if wrong != nil {
		all = misconfigured(wrong)
	} else {
		if whole, err := filepath.Abs(cfg.Path); err == nil && cfg.Path != "" {
			cfg.Path = whole // a person may be in another folder than they think
		}
		e := examination{cfg: cfg, app: c.App, offline: c.Offline, open: openProvider(cfg.Endpoints, slog.New(slog.DiscardHandler))}
		e.dev = dev
		all = e.run(ctx)
	}
	if err := c.tell(term.out, all); err != nil {
		return fmt.Errorf("writing the findings: %w", err)
	}
	switch n := count(all, providers.FindingFail); {
	case wrong != nil:
		return mistake("the settings cannot be; nothing else was looked at")
	case n == 1:
		return errors.New("one check failed")
	case n > 1:
		return fmt.Errorf("%d checks failed", n)
	}
	return nil
}

// lookAtDev takes the settings of the node that rouse dev runs, where it runs and neither a database nor the administrator's key
// was given. Its simulated Apple and Google are of dev's own making, so they are not asked.
func (c *doctorCmd) lookAtDev(ctx context.Context, term *terminal) bool {
	if c.AdminKey != "" || c.DB != defaultDB {
		return false
	}
	p, err := term.profile()
	if err != nil || p.OpsURL == "" {
		return false
	}
	if status, _ := ask(ctx, p.OpsURL+"/readyz"); status == 0 {
		return false
	}
	c.DB, c.AdminKey = p.database(), tokens.Secret(p.AdminKey)
	if c.DB.IsPostgres() {
		keys, err := os.ReadFile(config.KeyFile(filepath.Join(p.dir(), "postgres")))
		if err != nil {
			return false
		}
		c.MasterKeys = config.Hidden(strings.TrimSpace(string(keys)))
	}
	c.Listen, c.OpsListen = strings.TrimPrefix(p.URL, "http://"), strings.TrimPrefix(p.OpsURL, "http://")
	c.Offline = true
	return true
}

// misconfigured makes a finding of every mistake in the settings.
func misconfigured(err error) (all []found) {
	mistakes := []error{err}
	if joined := (interface{ Unwrap() []error })(nil); errors.As(err, &joined) {
		mistakes = joined.Unwrap()
	}
	for _, m := range mistakes {
		all = append(all, broken("configuration", "bad_setting", sentence(m.Error()), "Set it right in the flag or in its variable, as the sentence says."))
	}
	return all
}

// found is a finding about the node, or about one app.
type found struct {
	App     string `json:"app,omitempty"`
	AppName string `json:"app_name,omitempty"`
	providers.Finding
}

// fine is a check that found all well.
func fine(check, cause string, args ...any) found {
	return found{Finding: providers.Finding{Check: check, Status: providers.FindingOK, Cause: fmt.Sprintf(cause, args...)}}
}

// doubtful is a check that somebody should look at.
func doubtful(check, reason, cause, cure string) found {
	return found{Finding: providers.Finding{Check: check, Status: providers.FindingWarn, Reason: reason, Cause: cause, Cure: cure}}
}

// broken is a check that failed.
func broken(check, reason, cause, cure string) found {
	return found{Finding: providers.Finding{Check: check, Status: providers.FindingFail, Reason: reason, Cause: cause, Cure: cure}}
}

// sentence makes one of the text of an error.
func sentence(s string) string {
	s = strings.TrimSuffix(strings.TrimSpace(s), ".")
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

func count(all []found, status providers.FindingStatus) (n int) {
	for _, f := range all {
		if f.Status == status {
			n++
		}
	}
	return n
}

// examination is one run of the doctor over settings that are right.
type examination struct {
	cfg     config.Serve
	app     string // an id or a name; empty for all
	offline bool
	dev     bool // the settings are those of rouse dev
	open    opener
}

// run makes all checks, at once where they do not need each other, and returns what they found in a fixed order.
func (e examination) run(ctx context.Context) []found {
	// Asked before the database is opened: asking ends this process' own locks on it.
	user := e.user()
	var at, stored, ways []found
	var reached []reach
	var tenants []tenant
	var hints found
	var shared bool
	var wg sync.WaitGroup
	wg.Go(func() { at = e.server(ctx, user) })
	wg.Go(func() { reached = e.reach(ctx) })
	wg.Go(func() { stored, tenants = e.database(ctx) })
	wg.Go(func() { hints, shared = e.busFinding(ctx) })
	wg.Wait()
	if shared {
		stored = append(stored, hints)
	}
	ways = e.ways(reached, tenants)
	all := []found{fine("configuration", "Every setting is right.")}
	if e.dev {
		all[0].Cause = "No database and no key were given: this is the node of rouse dev. Its simulated Apple and Google are not asked."
	}
	for _, part := range [][]found{stored, at, ways, e.examineApps(ctx, tenants)} {
		all = append(all, part...)
	}
	return all
}

// user is who has the database open.
type user struct {
	pid   int // 0 if it cannot be seen from here
	used  bool
	known bool // false where the system does not tell
}

func (e examination) user() user {
	pid, used, err := store.User(string(e.cfg.DSN))
	return user{pid: pid, used: used, known: err == nil || errors.Is(err, fs.ErrNotExist)}
}

// who names the process, if it can be seen.
func (u user) who() string {
	if u.pid == 0 {
		return "a process that cannot be seen from here"
	}
	return fmt.Sprintf("process %d", u.pid)
}

// tell writes the findings for people, or as JSON for programs.
func (c *doctorCmd) tell(w io.Writer, all []found) error {
	failed, doubts := count(all, providers.FindingFail), count(all, providers.FindingWarn)
	if c.JSON || c.Output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(struct {
			OK       bool    `json:"ok"`
			Findings []found `json:"findings"`
		}{failed == 0, all})
	}
	app := ""
	for _, f := range all {
		if f.App != app {
			app = f.App
			fmt.Fprintf(w, "\n%s (%s)\n", f.App, f.AppName)
		}
		f.write(w)
	}
	fmt.Fprintf(w, "\n%d failed, %d to look at, %d fine.\n", failed, doubts, len(all)-failed-doubts)
	return nil
}

// words is how people read a status.
var words = map[providers.FindingStatus]string{providers.FindingOK: "ok", providers.FindingWarn: "look", providers.FindingFail: "FAIL"}

func (f found) write(w io.Writer) {
	fmt.Fprintf(w, "%-5s %-24s %s", words[f.Status], f.Check, f.Cause)
	if f.Reason != "" && !strings.Contains(f.Cause, "("+f.Reason+")") {
		fmt.Fprintf(w, " [%s]", f.Reason)
	}
	fmt.Fprintln(w)
	if f.Cure != "" {
		fmt.Fprintf(w, "%31s-> %s\n", "", f.Cure)
	}
}

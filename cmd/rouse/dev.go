package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"rouse/client"
	"rouse/config"
	"rouse/providers/sim"
)

type devCmd struct {
	Dir       string     `default:".rouse-dev" help:"Where the database and the keys are kept from one start to the next."`
	DB        config.DSN `name:"db" help:"Another database than a file there: postgres://user:password@host:5432/name." placeholder:"DSN"`
	Listen    string     `default:"127.0.0.1:8080" help:"Where the API listens."`
	OpsListen string     `default:"127.0.0.1:9090" help:"Where /livez, /readyz and /metrics listen."`
	SimListen string     `default:"127.0.0.1:8090" help:"Where the simulator's control API listens."`
	LogLevel  string     `default:"warn" help:"debug, info, warn or error."`
}

// Run runs everything until ctx ends.
func (c *devCmd) Run(ctx context.Context, term *terminal) (err error) {
	level, err := parseLevel(c.LogLevel)
	if err != nil {
		return err
	}
	log := newLog(term.err, level, false)
	p, err := c.loadProfile()
	if err != nil {
		return err
	}
	s, err := sim.Start(context.WithoutCancel(ctx), sim.Options{ControlListen: c.SimListen, Log: log})
	if err != nil {
		return fmt.Errorf("starting the simulator (--sim-listen): %w", taken(err))
	}
	// The simulator outlives the node, so that pushes in flight end as they would in life.
	defer func() { err = errors.Join(err, s.Close()) }()
	cfg, err := c.node(s, p)
	if err != nil {
		return err
	}
	group, inner := errgroup.WithContext(ctx)
	up := make(chan addresses, 1)
	group.Go(func() error { return serve(inner, cfg, log, func(at addresses) { up <- at }) })
	group.Go(func() error {
		select {
		case at := <-up:
			return c.furnish(inner, term, s, p, at)
		case <-inner.Done():
			return nil
		}
	})
	return group.Wait()
}

// profileFile is the profile's copy that stays with the database.
func (c *devCmd) profileFile() string { return filepath.Join(c.Dir, "dev.json") }

// loadProfile reads what an earlier start left, or begins anew.
func (c *devCmd) loadProfile() (profile, error) {
	var p profile
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return p, fmt.Errorf("making the state folder: %w", err)
	}
	if err := readJSON(c.profileFile(), &p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	if p.AdminKey == "" {
		p.AdminKey = mintAdminKey()
	}
	phones, err := filepath.Abs(filepath.Join(c.Dir, "phones"))
	if err != nil {
		return p, fmt.Errorf("finding the state folder: %w", err)
	}
	p.Phones, p.Topic, p.Project, p.DB = phones, demoTopic, demoProject, string(c.DB)
	return p, nil
}

func (c *devCmd) node(s *sim.Sim, p profile) (config.Serve, error) {
	cfg, err := localNode(s, filepath.Join(c.Dir, "rouse.db"), p.AdminKey)
	if err != nil {
		return cfg, err
	}
	cfg.Listen, cfg.OpsListen = c.Listen, c.OpsListen
	if c.DB == "" {
		return cfg, nil
	}
	dsn, path, err := config.CheckDB(string(c.DB))
	if err != nil {
		return cfg, &usageError{err}
	}
	cfg.DSN, cfg.Path = config.DSN(dsn), path
	if cfg.DSN.IsPostgres() {
		cfg.Bus = config.Bus{Carrier: config.CarrierPostgres, URL: cfg.DSN}
		cfg.Path = filepath.Join(c.Dir, "postgres") // no file; its master keys lie beside, as those of one would
	}
	return cfg, nil
}

// furnish makes the demo app if it is not there, gives it the simulator's new
// keys, and tells the other terminals and the person at this one.
func (c *devCmd) furnish(ctx context.Context, term *terminal, s *sim.Sim, p profile, at addresses) error {
	p.URL, p.OpsURL, p.ControlURL = at.api, at.ops, s.ControlURL()
	admin, err := newClient(p.URL, p.AdminKey)
	if err != nil {
		return err
	}
	if p, err = demoApp(ctx, admin, p); err != nil {
		return err
	}
	if err := putDemoCredentials(ctx, admin, s, p.AppID); err != nil {
		return err
	}
	shared, err := term.profilePath()
	if err != nil {
		return err
	}
	for _, path := range []string{c.profileFile(), shared} {
		if err := writeJSON(path, p); err != nil {
			return err
		}
	}
	c.welcome(term.out, p)
	return nil
}

// demoApp returns p with the app it already names, or with a new one if that is gone.
func demoApp(ctx context.Context, admin *client.Client, p profile) (profile, error) {
	if p.AppID != "" {
		_, err := answer[client.App](admin.GetApp(ctx, p.AppID))
		if err == nil {
			return p, nil
		}
		if !hasCode(err, "app_not_found") {
			return p, fmt.Errorf("looking for the demo app: %w", err)
		}
	}
	app, err := answer[client.AppCreated](admin.CreateApp(ctx, client.AppCreate{Name: demoName}))
	if err != nil {
		return p, fmt.Errorf("making the demo app: %w", err)
	}
	p.AppID, p.SecretKey, p.PublishableKey = app.Id, app.SecretKey, app.PublishableKey
	return p, nil
}

func (c *devCmd) welcome(w io.Writer, p profile) {
	fmt.Fprintf(w, `Rouse is up, with a simulated Apple and Google. Nothing leaves this machine.

  API             %[2]s
  docs            %[2]s/docs
  health, metrics %[3]s/readyz %[3]s/metrics
  simulator       %[4]s
  app             %[5]s
  secret key      %[6]s
  publishable key %[7]s
  admin key       %[8]s
  kept in         %[9]s%[10]s

In a second terminal, be a phone:  %[1]s device
In a third, wake it:               %[1]s send 'hello, phone'
Then see what happened:            %[1]s trace MESSAGE_ID
Or follow it as it happens:        %[1]s tail
Reach everyone, or a topic later:  %[1]s send --broadcast 'hello, all'; %[1]s send --topic news --at +1m 'news' (%[1]s device --topic news)

By hand (DEVICE_ID is what the phone says at its start; for all phones of %[1]s device --user ann
write {"to":{"user_id":"ann"}, ...}):
  curl -s %[2]s/v1/messages -H 'Authorization: Bearer %[6]s' \
    -H 'Content-Type: application/json' -d '{"to":{"device_id":"DEVICE_ID"},"data":{"text":"hello"}}'

Ctrl-C stops; the next start has the same app, keys and phones.
`, self(), p.URL, p.OpsURL, p.ControlURL, p.AppID, p.SecretKey, p.PublishableKey, p.AdminKey, c.Dir, c.elsewhere())
}

// elsewhere says where the database is, if it is not in the folder.
func (c *devCmd) elsewhere() string {
	if c.DB == "" {
		return ""
	}
	return " and " + c.DB.String()
}

// self is how this program was called, for commands that a person copies.
func self() string {
	if strings.Contains(os.Args[0], "go-build") {
		return "go run ./cmd/rouse"
	}
	return os.Args[0]
}

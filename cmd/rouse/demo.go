package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"time"

	"rouse/client"
	"rouse/config"
	"rouse/providers/sim"
)

type demoCmd struct {
	LogLevel string `default:"error" help:"debug, info, warn or error."`
}

// stepLimit is how long any one step may take before the demo has failed.
const stepLimit = 10 * time.Second

// Run shows every way a message takes, and fails if one does not work.
func (c *demoCmd) Run(ctx context.Context, term *terminal) (err error) {
	level, err := parseLevel(c.LogLevel)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "rouse-demo-")
	if err != nil {
		return fmt.Errorf("making room: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	log := newLog(term.err, level, false)
	s, err := sim.Start(context.WithoutCancel(ctx), sim.Options{Log: log, Strict: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	cfg, err := localNode(s, filepath.Join(dir, "rouse.db"), mintAdminKey())
	if err != nil {
		return err
	}
	d := &demo{sim: s, stage: &stage{cfg: cfg, log: log}, out: term.out}
	return d.play(ctx)
}

// demo is one performance. Its steps run one after the other.
type demo struct {
	sim   *sim.Sim
	stage *stage
	out   io.Writer

	app     profile
	backend *client.Client
	android *demoPhone
	bell    *demoPhone   // the box, which waits on its poll
	phones  []*demoPhone // all of them
	rows    []row
	events  string // what was told of them
}

// demoPhone is a phone with the token that the simulated provider knows it by.
type demoPhone struct {
	*phone
	name     string
	provider string
	token    string
}

// row is one line of the table: how long each step took; zero did not happen.
type row struct {
	name                            string
	accepted, woken, fetched, acked time.Duration
	remark                          string
}

func (d *demo) play(ctx context.Context) (err error) {
	begun := time.Now()
	if err := d.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stage.down()) }()
	for _, act := range []struct {
		name string
		play func(context.Context) error
	}{
		{"an iPhone asleep", d.iphone},
		{"an Android phone asleep", d.androidPhone},
		{"a box without a push provider", d.box},
		{"a message to everyone", d.everyone},
		{"a message for later", d.later},
		{"100 messages to a sleeping phone", d.burst},
		{"a restart while Google is down", d.restart},
		{"the events of all that", d.told},
	} {
		step, cancel := context.WithTimeout(ctx, stepLimit)
		err := act.play(step)
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", act.name, err)
		}
	}
	d.table()
	fmt.Fprintf(d.out, "\n%s\n", d.events)
	fmt.Fprintf(d.out, "All of it worked, over real HTTP and the providers' own protocols, in %v.\n", time.Since(begun).Round(10*time.Millisecond))
	return nil
}

// open raises the curtain: a node, an app, and the credentials for both providers.
func (d *demo) open(ctx context.Context) error {
	at, err := d.stage.up(ctx)
	if err != nil {
		return err
	}
	d.app.URL, d.app.AdminKey = at.api, string(d.stage.cfg.AdminKey)
	admin, err := newClient(d.app.URL, d.app.AdminKey)
	if err != nil {
		return err
	}
	if d.app, err = demoApp(ctx, admin, d.app); err != nil {
		return err
	}
	if d.backend, err = newClient(d.app.URL, d.app.SecretKey); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "Rouse serves on %s; Apple is played on %s, Google on %s.\n\n", at.api, d.sim.APNsURL(), d.sim.FCMURL())
	return putDemoCredentials(ctx, admin, d.sim, d.app.AppID)
}

func (d *demo) enrol(ctx context.Context, name, provider string) (*demoPhone, error) {
	p := &demoPhone{name: name, provider: provider}
	switch provider {
	case "apns":
		p.token = d.sim.NewAPNsToken(demoTopic, false)
	case "fcm":
		p.token = d.sim.NewFCMToken(demoProject)
	}
	var err error
	p.phone, err = enrol(ctx, enrolment{url: d.app.URL, publishableKey: d.app.PublishableKey, installation: "demo-" + strconv.Itoa(len(d.phones)), provider: provider, token: p.token})
	d.phones = append(d.phones, p)
	return p, err
}

func (d *demo) table() {
	w := tabwriter.NewWriter(d.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "PHONE\tACCEPTED\tWOKEN\tFETCHED\tACKED\tREMARK")
	for _, r := range d.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.name, ms(r.accepted), ms(r.woken), ms(r.fetched), ms(r.acked), r.remark)
	}
	_ = w.Flush()
	fmt.Fprintln(d.out, "A - is a step that was not needed, or not timed by itself. Every message was acked.")
}

func ms(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// stage is a node that can be taken down and put up again over the same database.
type stage struct {
	cfg    config.Serve
	log    *slog.Logger
	at     addresses // where it listens, since up returned
	cancel context.CancelFunc
	done   chan error
}

// up starts the node and returns where it listens.
func (s *stage) up(ctx context.Context) (addresses, error) {
	ctx, s.cancel = context.WithCancel(ctx)
	s.done = make(chan error, 1)
	ready := make(chan addresses, 1)
	go func() { s.done <- serve(ctx, s.cfg, s.log, func(at addresses) { ready <- at }) }()
	select {
	case s.at = <-ready:
		return s.at, nil
	case err := <-s.done:
		s.cancel()
		return addresses{}, fmt.Errorf("starting the node: %w", errors.Join(err, ctx.Err()))
	}
}

// down stops the node in order and returns what went wrong.
func (s *stage) down() error {
	s.cancel()
	err := <-s.done
	s.done <- nil // a second down has nothing to wait for
	return err
}

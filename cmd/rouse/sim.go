package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"rouse/providers/sim"
)

type simCmd struct {
	APNsListen        string `name:"apns-listen" default:"127.0.0.1:0" help:"Where the fake Apple listens (production)."`
	APNsSandboxListen string `name:"apns-sandbox-listen" default:"127.0.0.1:0" help:"Where the fake Apple listens (sandbox)."`
	FCMListen         string `name:"fcm-listen" default:"127.0.0.1:0" help:"Where the fake Google listens."`
	FCMPlainListen    string `name:"fcm-plain-listen" default:"127.0.0.1:0" help:"Where the fake Google listens without TLS, for HTTP/1.1."`
	ControlListen     string `default:"127.0.0.1:8090" help:"Where the control API listens. It has no authentication: keep it on loopback."`
	CAFile            string `name:"ca-file" default:"rouse-sim-ca.pem" help:"Where to write the certificate that clients must trust."`
	LogLevel          string `default:"info" help:"debug, info, warn or error."`

	Hosts           []string      `placeholder:"NAME,..." help:"Further names and addresses that clients use, for the certificates."`
	Rules           string        `placeholder:"FILE" help:"A file of rules that hold from the start."`
	Seed            uint64        `default:"1" help:"Shuffles what is left to chance; the same seed makes the same choices."`
	Strict          bool          `help:"End APNs connections whose client opens more streams than it may."`
	Throttle4xx     bool          `name:"throttle-4xx" help:"Slow APNs connections down after refusals, and end them after too many."`
	ThrottleErrors  int           `default:"100" help:"How many refusals end a connection under --throttle-4xx."`
	AccessTokenLife time.Duration `default:"59m59s" help:"How long FCM access tokens work."`
	APNsLatency     sim.Latency   `name:"apns-latency" placeholder:"TIME" help:"How long APNs takes: 50ms, 10ms..90ms, or '50ms p99=400ms'."`
	FCMLatency      sim.Latency   `name:"fcm-latency" placeholder:"TIME" help:"How long FCM takes."`
	TokenLatency    sim.Latency   `name:"token-latency" placeholder:"TIME" help:"How long Google's token endpoint takes."`
	Delivery        string        `default:"instant" help:"instant, or real: storage, expiry, collapsing, budgets, and phones that can be offline."`
}

// Run runs the simulator until ctx ends.
func (c *simCmd) Run(ctx context.Context, term *terminal) (err error) {
	level, err := parseLevel(c.LogLevel)
	if err != nil {
		return err
	}
	options := c.options()
	if options.Rules, err = readRules(c.Rules); err != nil {
		return err
	}
	options.Log = newLog(term.err, level, false)
	s, err := sim.Start(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := os.WriteFile(c.CAFile, s.CAPEM(), 0o644); err != nil {
		return fmt.Errorf("writing the certificate: %w", err)
	}
	c.welcome(term.out, s)
	<-ctx.Done()
	return nil
}

// welcome says where everything is: for any backend, and as Rouse's settings.
func (c *simCmd) welcome(out io.Writer, s *sim.Sim) {
	fmt.Fprintf(out, `The fake Apple and Google are up. Point your backend at:

  APNs               %[1]s
  APNs sandbox       %[2]s
  FCM                %[3]s
  FCM's tokens       %[4]s
  FCM without TLS    %[5]s (HTTP/1.1)
  the CA to trust    %[6]s (made anew at each start)

Rouse takes them as:

  ROUSE_APNS_ENDPOINT=%[1]s
  ROUSE_APNS_SANDBOX_ENDPOINT=%[2]s
  ROUSE_APNS_CA=%[6]s
  ROUSE_FCM_ENDPOINT=%[3]s
  ROUSE_FCM_TOKEN_ENDPOINT=%[4]s
  ROUSE_FCM_CA=%[6]s

Control API: %[7]s
`, s.APNsURL(), s.APNsSandboxURL(), s.FCMURL(), s.FCMTokenURL(), s.FCMPlainURL(), c.CAFile, s.ControlURL())
}

func (c *simCmd) options() sim.Options {
	return sim.Options{
		APNsListen: c.APNsListen, APNsSandboxListen: c.APNsSandboxListen, FCMListen: c.FCMListen, FCMPlainListen: c.FCMPlainListen,
		ControlListen: c.ControlListen, Hosts: c.Hosts, Seed: c.Seed, Strict: c.Strict, Throttle4xx: c.Throttle4xx, ThrottleErrors: c.ThrottleErrors,
		AccessTokenLife: c.AccessTokenLife, APNsLatency: c.APNsLatency, FCMLatency: c.FCMLatency, TokenLatency: c.TokenLatency, Delivery: c.Delivery,
	}
}

// readRules reads the file of --rules; no name, no rules.
func readRules(path string) ([]sim.Rule, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the rules (--rules): %w", err)
	}
	rules, err := sim.ReadRules(data)
	if err != nil {
		return nil, fmt.Errorf("%s (--rules) is not usable:\n%w", path, err)
	}
	return rules, nil
}

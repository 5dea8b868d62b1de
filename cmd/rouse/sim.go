package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"rouse/providers/sim"
)

type simCmd struct {
	APNsListen        string `name:"apns-listen" default:"127.0.0.1:0" help:"Where the fake Apple listens (production)."`
	APNsSandboxListen string `name:"apns-sandbox-listen" default:"127.0.0.1:0" help:"Where the fake Apple listens (sandbox)."`
	FCMListen         string `name:"fcm-listen" default:"127.0.0.1:0" help:"Where the fake Google listens."`
	ControlListen     string `default:"127.0.0.1:8090" help:"Where the control API listens. It has no authentication: keep it on loopback."`
	CAFile            string `name:"ca-file" default:"rouse-sim-ca.pem" help:"Where to write the certificate that clients must trust."`
	LogLevel          string `default:"info" help:"debug, info, warn or error."`
}

// Run runs the simulator until ctx ends.
func (c *simCmd) Run(ctx context.Context, term *terminal) (err error) {
	level, err := parseLevel(c.LogLevel)
	if err != nil {
		return err
	}
	s, err := sim.Start(ctx, sim.Options{
		APNsListen: c.APNsListen, APNsSandboxListen: c.APNsSandboxListen, FCMListen: c.FCMListen,
		ControlListen: c.ControlListen, Log: newLog(term.err, level, false),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := os.WriteFile(c.CAFile, s.CAPEM(), 0o644); err != nil {
		return fmt.Errorf("writing the certificate: %w", err)
	}
	fmt.Fprintf(term.out, `The fake Apple and Google are up. Start Rouse with:

  ROUSE_APNS_ENDPOINT=%s
  ROUSE_APNS_SANDBOX_ENDPOINT=%s
  ROUSE_APNS_CA=%s
  ROUSE_FCM_ENDPOINT=%s
  ROUSE_FCM_TOKEN_ENDPOINT=%s
  ROUSE_FCM_CA=%s

Control API: %s
`, s.APNsURL(), s.APNsSandboxURL(), c.CAFile, s.FCMURL(), s.FCMTokenURL(), c.CAFile, s.ControlURL())
	<-ctx.Done()
	return nil
}

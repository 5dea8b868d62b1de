package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"rouse/client"
	"rouse/config"
	"rouse/providers/sim"
	"rouse/tokens"
)

// What the demo app is called at the simulated Apple and Google.
const (
	demoName    = "Rouse demo"
	demoTopic   = "com.example.rouse.demo"
	demoProject = "rouse-demo"
	demoTeam    = "ROUSEDEMO1"
	demoKeyID   = "DEMOKEY001"
)

// endpointsOf points a node at the simulator.
func endpointsOf(s *sim.Sim) (config.Endpoints, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(s.CAPEM()) {
		return config.Endpoints{}, errors.New("the simulator's certificate cannot be read")
	}
	return config.Endpoints{
		APNs: s.APNsURL(), APNsSandbox: s.APNsSandboxURL(), APNsCA: pool,
		FCM: s.FCMURL(), FCMToken: s.FCMTokenURL(), FCMCA: pool,
	}, nil
}

// localNode is the settings of a node that serves this machine alone, over a
// database file, against the simulator.
func localNode(s *sim.Sim, dbPath, adminKey string) (config.Serve, error) {
	endpoints, err := endpointsOf(s)
	if err != nil {
		return config.Serve{}, err
	}
	return config.Serve{
		Listen: "127.0.0.1:0", OpsListen: "127.0.0.1:0", DSN: config.DSN("sqlite:" + dbPath), Path: dbPath, Bus: config.Bus{Carrier: config.CarrierMemory},
		AdminKey: tokens.Secret(adminKey), Endpoints: endpoints,
		WebhookAllow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		LogLevel:     slog.LevelWarn, Grace: 10 * time.Second, DrainTimeout: 4 * time.Second,
	}, nil
}

// putDemoCredentials gives the app fresh keys of the simulator for both providers.
func putDemoCredentials(ctx context.Context, admin *client.Client, s *sim.Sim, app string) error {
	team, key := demoTeam, demoKeyID
	pem := s.NewAPNsKey(team, key, demoTopic)
	apns := client.ApnsCredentialPut{TeamId: &team, KeyId: &key, PrivateKey: &pem, Topic: demoTopic}
	if _, err := answer[client.Credential](admin.PutApnsCredential(ctx, app, apns)); err != nil {
		return fmt.Errorf("putting the demo credential for Apple: %w", err)
	}
	fcm := client.FcmCredentialPut{ServiceAccount: s.NewServiceAccount(demoProject)}
	if _, err := answer[client.Credential](admin.PutFcmCredential(ctx, app, fcm)); err != nil {
		return fmt.Errorf("putting the demo credential for Google: %w", err)
	}
	return nil
}

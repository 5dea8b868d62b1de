package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rouse/config"
	"rouse/providers"
	"rouse/providers/apns"
	"rouse/providers/fcm"
	"rouse/providers/wire"
	"rouse/tokens"
)

// checker reads what an app uploads, each provider's by its own rules.
type checker struct{}

// APNs checks a credential for Apple.
func (checker) APNs(u providers.APNsUpload) (tokens.Credential, error) {
	c, err := apns.Check(u, time.Now())
	return credentialOf(tokens.APNs, c), err
}

// FCM checks a credential for Google.
func (checker) FCM(u providers.FCMUpload) (tokens.Credential, error) {
	c, err := fcm.Check(u, time.Now())
	return credentialOf(tokens.FCM, c), err
}

func credentialOf(p tokens.Provider, c providers.Checked) tokens.Credential {
	return tokens.Credential{Provider: p, Public: c.Public, Secret: c.Secret, Fingerprint: c.Fingerprint, ExpiresAt: c.ExpiresAt}
}

// openProvider makes clients that speak to the operator's endpoints, whatever the credential says.
func openProvider(e config.Endpoints, log *slog.Logger) opener {
	return openCounted(e, log, nil)
}

// openCounted is openProvider whose clients' connections are counted; connections is from countConnections, or nil.
func openCounted(e config.Endpoints, log *slog.Logger, connections *prometheus.CounterVec) opener {
	count := func(p tokens.Provider) func(wire.Event) {
		if connections == nil {
			return nil
		}
		return func(event wire.Event) { connections.WithLabelValues(string(p), string(event.Kind)).Inc() }
	}
	return func(c tokens.Credential, env tokens.Environment) (providers.Provider, error) {
		switch c.Provider {
		case tokens.APNs:
			return apns.New(c.Secret, env == tokens.Sandbox, apns.Options{
				Endpoint: e.APNs, SandboxEndpoint: e.APNsSandbox, RootCAs: e.APNsCA, Log: log, Observe: count(c.Provider),
			})
		case tokens.FCM:
			return fcm.New(c.Secret, fcm.Options{Endpoint: e.FCM, TokenEndpoint: e.FCMToken, RootCAs: e.FCMCA, Log: log, Observe: count(c.Provider)})
		default:
			return nil, fmt.Errorf("nobody pushes for provider %q", c.Provider)
		}
	}
}

// countConnections registers the counter of what happens to the connections of all apps. Every series is there from the start,
// so that the first of its kind shows as a rise.
func countConnections(registry prometheus.Registerer) *prometheus.CounterVec {
	connections := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rouse_provider_connections_total",
		Help: "What happened to connections to a provider: opened, failed (none came about), goaway (ended by the server in order), refused (a request was handed back unread), lost (it broke).",
	}, []string{"provider", "event"})
	for _, p := range []tokens.Provider{tokens.APNs, tokens.FCM} {
		for _, kind := range wire.Kinds() {
			connections.WithLabelValues(string(p), string(kind))
		}
	}
	registry.MustRegister(connections)
	return connections
}

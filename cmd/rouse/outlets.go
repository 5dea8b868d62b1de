package main

import (
	"fmt"
	"log/slog"
	"time"

	"rouse/config"
	"rouse/providers"
	"rouse/providers/apns"
	"rouse/providers/fcm"
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
	return func(c tokens.Credential, env tokens.Environment) (providers.Provider, error) {
		switch c.Provider {
		case tokens.APNs:
			return apns.New(c.Secret, env == tokens.Sandbox, apns.Options{Endpoint: e.APNs, SandboxEndpoint: e.APNsSandbox, RootCAs: e.APNsCA, Log: log})
		case tokens.FCM:
			return fcm.New(c.Secret, fcm.Options{Endpoint: e.FCM, TokenEndpoint: e.FCMToken, RootCAs: e.FCMCA, Log: log})
		default:
			return nil, fmt.Errorf("nobody pushes for provider %q", c.Provider)
		}
	}
}

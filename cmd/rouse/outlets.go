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
	shown, sealed, fingerprint, err := apns.Check(u, time.Now())
	return tokens.Credential{Provider: tokens.APNs, Public: shown, Secret: sealed, Fingerprint: fingerprint}, err
}

// FCM checks a credential for Google.
func (checker) FCM(serviceAccount []byte) (tokens.Credential, error) {
	shown, sealed, fingerprint, err := fcm.Check(serviceAccount, time.Now())
	return tokens.Credential{Provider: tokens.FCM, Public: shown, Secret: sealed, Fingerprint: fingerprint}, err
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

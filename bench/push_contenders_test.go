package bench_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"strconv"
	"time"

	firebase "firebase.google.com/go/v4"
	"firebase.google.com/go/v4/messaging"
	"github.com/google/uuid"
	"github.com/sideshow/apns2"
	apnstoken "github.com/sideshow/apns2/token"
	"golang.org/x/net/http2"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"google.golang.org/api/option"

	"rouse/providers"
	"rouse/providers/apns"
	"rouse/providers/fcm"
	"rouse/providers/sim"
)

const (
	benchTeam    = "TEAM000001"
	benchKey     = "KEY0000001"
	benchTopic   = "com.example.app"
	benchProject = "example-project"
	// streams is how many pushes Google takes on one connection.
	streams = 100
)

// newOurAPNs pushes through the provider, as a worker does.
func newOurAPNs(s *sim.Sim, roots *x509.CertPool) (pusher, error) {
	checked, err := apns.Check(providers.APNsUpload{TeamID: benchTeam, KeyID: benchKey, PrivateKey: s.NewAPNsKey(benchTeam, benchKey), Topic: benchTopic}, time.Now())
	if err != nil {
		return pusher{}, err
	}
	c, err := apns.New(checked.Secret, false, apns.Options{Endpoint: s.APNsURL(), RootCAs: roots, InFlight: callers})
	if err != nil {
		return pusher{}, err
	}
	return throughProvider("the APNs provider", c, tokensOf(func() string { return s.NewAPNsToken(benchTopic, false) })), nil
}

// newOurFCM pushes through the provider, as a worker does.
func newOurFCM(s *sim.Sim, roots *x509.CertPool) (pusher, error) {
	checked, err := fcm.Check(providers.FCMUpload{ServiceAccount: s.NewServiceAccount(benchProject)}, time.Now())
	if err != nil {
		return pusher{}, err
	}
	c, err := fcm.New(checked.Secret, fcm.Options{Endpoint: s.FCMURL(), TokenEndpoint: s.FCMTokenURL(), RootCAs: roots, InFlight: callers})
	if err != nil {
		return pusher{}, err
	}
	return throughProvider("the FCM provider", c, tokensOf(func() string { return s.NewFCMToken(benchProject) })), nil
}

// tokensOf makes a device for each caller.
func tokensOf(make func() string) (all [callers]string) {
	for i := range all {
		all[i] = make()
	}
	return all
}

func throughProvider(name string, p providers.Provider, tokens [callers]string) pusher {
	return pusher{
		name: name,
		push: func(ctx context.Context, caller int) error {
			out := p.Push(ctx, providers.Push{
				ID: uuid.NewString(), Token: tokens[caller], Platform: "android", Kind: providers.Alert,
				Head: "CAEA", CollapseID: "rouse", ExpiresAt: time.Now().Add(time.Hour),
			})
			if out.Verdict != providers.Accepted {
				return fmt.Errorf("%s %s", out.Verdict, out.Reason)
			}
			return nil
		},
		close: func() { _ = p.Close() },
	}
}

// newBareAPNs is apns2 with its own transport: the payload is made once, everything else as the provider sends it.
func newBareAPNs(s *sim.Sim, roots *x509.CertPool) (pusher, error) {
	const otherKey = "KEY0000002"
	key, err := apnstoken.AuthKeyFromBytes([]byte(s.NewAPNsKey(benchTeam, otherKey)))
	if err != nil {
		return pusher{}, err
	}
	c := apns2.NewTokenClient(&apnstoken.Token{AuthKey: key, KeyID: otherKey, TeamID: benchTeam})
	c.Host = s.APNsURL()
	c.HTTPClient.Transport.(*http2.Transport).TLSClientConfig = &tls.Config{RootCAs: roots} //nolint:staticcheck // apns2 is built on x/net/http2
	tokens := tokensOf(func() string { return s.NewAPNsToken(benchTopic, false) })
	payload := []byte(`{"aps":{"alert":{"body":"You have a new message"},"mutable-content":1,"sound":"default"},"rouse":"1","head":"CAEA"}`)
	return pusher{
		name: "a bare apns2 loop",
		push: func(ctx context.Context, caller int) error {
			answer, err := c.PushWithContext(ctx, &apns2.Notification{
				ApnsID: uuid.NewString(), DeviceToken: tokens[caller], Topic: benchTopic, CollapseID: "rouse",
				Expiration: time.Now().Add(time.Hour), Priority: apns2.PriorityHigh, PushType: apns2.PushTypeAlert, Payload: payload,
			})
			if err != nil {
				return err
			}
			if !answer.Sent() {
				return fmt.Errorf("%d %s", answer.StatusCode, answer.Reason)
			}
			return nil
		},
		close: c.CloseIdleConnections,
	}, nil
}

// newBareFCM is firebase over one transport that may open as many connections as the pushes fill.
func newBareFCM(s *sim.Sim, roots *x509.CertPool) (pusher, error) {
	return bareFCM(s, roots, "a bare firebase loop, one transport", 1)
}

// newSpreadFCM is firebase over a transport for each hundred callers, so that none ever meets a full connection.
func newSpreadFCM(s *sim.Sim, roots *x509.CertPool) (pusher, error) {
	return bareFCM(s, roots, "a bare firebase loop, a transport per 100", callers/streams)
}

func bareFCM(s *sim.Sim, roots *x509.CertPool, name string, transports int) (pusher, error) {
	account, err := google.JWTConfigFromJSON(s.NewServiceAccount(benchProject), "https://www.googleapis.com/auth/firebase.messaging")
	if err != nil {
		return pusher{}, err
	}
	trusting := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer trusting.CloseIdleConnections()
	access, err := account.TokenSource(context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Transport: trusting})).Token()
	if err != nil {
		return pusher{}, err
	}
	sdks := make([]*messaging.Client, transports)
	bases := make([]*http.Transport, transports)
	for i := range sdks {
		bases[i] = warmTransport(roots, callers/transports)
		client := &http.Client{Transport: &oauth2.Transport{Source: oauth2.StaticTokenSource(access), Base: bases[i]}}
		if sdks[i], err = bareSDK(s.FCMURL(), client); err != nil {
			return pusher{}, err
		}
	}
	messages := messagesTo(tokensOf(func() string { return s.NewFCMToken(benchProject) }))
	return pusher{
		name: name,
		push: func(ctx context.Context, caller int) error {
			_, err := sdks[caller%transports].Send(ctx, messages[caller])
			return err
		},
		close: func() {
			for _, base := range bases {
				base.CloseIdleConnections()
			}
		},
	}, nil
}

// warmTransport keeps its connections open between turns and opens no more than inFlight pushes need.
func warmTransport(roots *x509.CertPool, inFlight int) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	return &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, Protocols: protocols, DisableCompression: true,
		MaxConnsPerHost: (inFlight + streams - 1) / streams, MaxIdleConnsPerHost: inFlight, IdleConnTimeout: time.Minute,
	}
}

func bareSDK(endpoint string, client *http.Client) (*messaging.Client, error) {
	ctx := context.Background()
	app, err := firebase.NewApp(ctx, &firebase.Config{ProjectID: benchProject}, option.WithHTTPClient(client), option.WithEndpoint(endpoint))
	if err != nil {
		return nil, err
	}
	return app.Messaging(ctx)
}

// messagesTo is what the provider sends, made once for each caller.
func messagesTo(tokens [callers]string) (all [callers]*messaging.Message) {
	ttl := time.Hour - time.Second
	for i, token := range tokens {
		all[i] = &messaging.Message{
			Token: token, Data: map[string]string{"rouse": "1", "head": "CAEA" + strconv.Itoa(i%10)},
			Android: &messaging.AndroidConfig{Priority: "high", TTL: &ttl},
		}
	}
	return all
}

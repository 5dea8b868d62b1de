package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"rouse/providers/sim"
)

// radio is how a phone in a terminal hears from the simulated Apple or Google:
// the simulator's control API.
type radio struct {
	url  string
	http *http.Client
}

func newRadio(controlURL string) *radio {
	return &radio{url: controlURL, http: &http.Client{Timeout: 75 * time.Second}}
}

// errUnknownToken means that the simulator was restarted and has forgotten the
// token: the phone needs a new one, as after a reinstallation.
var errUnknownToken = errors.New("the simulator does not know this token")

// token registers a new token with the provider.
func (r *radio) token(ctx context.Context, provider string, p profile) (string, error) {
	ask := map[string]string{"provider": provider}
	if provider == sim.APNs {
		ask["topic"] = p.Topic
	} else {
		ask["project"] = p.Project
	}
	var got struct {
		Token string `json:"token"`
	}
	err := r.call(ctx, http.MethodPost, "/control/tokens", ask, &got)
	return got.Token, err
}

// pushes returns what came for the token after the push of that number, waiting
// up to wait seconds for the first. The error is errUnknownToken if there is no such token.
func (r *radio) pushes(ctx context.Context, token string, after, wait int) ([]sim.Delivered, error) {
	query := url.Values{"token": {token}, "after": {strconv.Itoa(after)}, "wait": {strconv.Itoa(wait)}}
	var got struct {
		Pushes []sim.Delivered `json:"pushes"`
	}
	err := r.call(ctx, http.MethodGet, "/control/pushes?"+query.Encode(), nil, &got)
	return got.Pushes, err
}

func (r *radio) call(ctx context.Context, method, path string, body, into any) error {
	var content io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("asking the simulator: %w", err)
		}
		content = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, content)
	if err != nil {
		return fmt.Errorf("asking the simulator: %w", withoutURL(err))
	}
	res, err := r.http.Do(req)
	if err != nil {
		return fmt.Errorf("asking the simulator at %s (does `rouse dev` run?): %w", r.url, withoutURL(err))
	}
	defer func() { _ = res.Body.Close() }()
	switch {
	case res.StatusCode == http.StatusNotFound:
		return errUnknownToken
	case res.StatusCode >= http.StatusMultipleChoices:
		return fmt.Errorf("asking the simulator: it answered %s", res.Status)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("asking the simulator: %w", err)
	}
	return nil
}

// withoutURL takes the URL out of an HTTP client's error: its query holds the phone's token.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

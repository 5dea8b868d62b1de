package main

import (
	"bytes"
	"testing"
	"time"

	"rouse/client"
)

// TestWakeByHandReachesThePhone: one push through the app's own credential, without a word of a message, which changes nothing.
func TestWakeByHandReachesThePhone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	wake := func(device string) client.WakeReport {
		t.Helper()
		report, err := answer[client.WakeReport](r.backend().WakeDevice(t.Context(), device))
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	view := func(device string) client.DeviceView {
		t.Helper()
		v, err := answer[client.DeviceView](r.backend().GetDevice(t.Context(), device))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, provider := range []string{"fcm", "apns"} {
		p, dead := r.enrol("by-hand-"+provider, provider), r.enrol("dead-"+provider, provider)
		report := wake(p.device)
		if !report.Sent || deref(report.Verdict) != "accepted" || deref(report.Provider) != provider || report.DurationMs == nil || report.Unreachable != nil {
			t.Errorf("%s: %+v", provider, report)
		}
		push := r.awaitPush(p, 0)
		if !bytes.Contains(push.Body, []byte(`"rouse":"1"`)) || bytes.Contains(push.Body, []byte(`"head"`)) {
			t.Errorf("%s: pushed %s", provider, push.Body)
		}
		r.sim.KillToken(dead.token, time.Now())
		if report = wake(dead.device); !report.Sent || deref(report.Verdict) != "token_dead" || deref(report.Reason) == "" {
			t.Errorf("%s: %+v", provider, report)
		}
		if v := view(dead.device); v.TokenState != "active" || !v.Reachable {
			t.Errorf("%s: the token is %s", provider, v.TokenState)
		}
		// What was pushed by hand stands for no message: the next one is called for as ever.
		before := r.heard(p)
		r.mustSend(p.device, `1`)
		if push := r.awaitPush(p, before); !bytes.Contains(push.Body, []byte(`"head"`)) {
			t.Errorf("%s: pushed %s", provider, push.Body)
		}
		if v := view(p.device); v.Pending != 1 {
			t.Errorf("%s: %d wait", provider, v.Pending)
		}
	}
	if report := wake(r.enrol("poller", "none").device); report.Sent || report.Unreachable == nil || report.Unreachable.Code != "no_provider" {
		t.Errorf("without a provider: %+v", report)
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

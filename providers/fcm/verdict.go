package fcm

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"rouse/providers"
	"rouse/providers/wire"
)

// answer is what FCM said, as far as it matters.
type answer struct {
	status int
	// name is that of the message FCM took; empty on refusals.
	name string
	// known is whether the body is Google's error JSON. HTML comes from somewhere in front of FCM.
	known bool
	// code is FCM's own error code, category Google's general one, info the finer word that may go with it.
	code, category, info string
	// badToken is whether the refusal is about the spelling of the token.
	badToken bool
	// oneDevice is whether a quota is that of one device.
	oneDevice bool
}

const (
	fcmDetail   = "google.firebase.fcm.v1.FcmError"
	quotaDetail = "google.rpc.QuotaFailure"
	fieldDetail = "google.rpc.BadRequest"
	infoDetail  = "google.rpc.ErrorInfo"
)

// read takes an answer apart. The order of details varies, and they may be missing.
func read(status int, body []byte) answer {
	a := answer{status: status}
	var said struct {
		Name  string `json:"name"`
		Error *struct {
			Status  string   `json:"status"`
			Message string   `json:"message"`
			Details []detail `json:"details"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &said) != nil {
		return a
	}
	a.name = said.Name
	if said.Error == nil {
		return a
	}
	a.known, a.category = true, wire.Word(said.Error.Status)
	a.badToken = strings.Contains(said.Error.Message, "not a valid FCM registration token")
	for _, d := range said.Error.Details {
		switch {
		case strings.HasSuffix(d.Type, fcmDetail):
			a.code = wire.Word(d.ErrorCode)
		case strings.HasSuffix(d.Type, infoDetail):
			a.info = wire.Word(d.Reason)
		case strings.HasSuffix(d.Type, quotaDetail):
			a.oneDevice = d.quotaOfOneDevice()
		case strings.HasSuffix(d.Type, fieldDetail):
			a.badToken = a.badToken || d.aboutToken()
		}
	}
	return a
}

// detail is any of the things Google hangs on an error.
type detail struct {
	Type            string `json:"@type"`
	ErrorCode       string `json:"errorCode"`
	Reason          string `json:"reason"`
	FieldViolations []struct {
		Field string `json:"field"`
	} `json:"fieldViolations"`
	Violations []struct {
		Subject string `json:"subject"`
	} `json:"violations"`
}

func (d detail) aboutToken() bool {
	for _, v := range d.FieldViolations {
		if v.Field == "message.token" {
			return true
		}
	}
	return false
}

// quotaOfOneDevice reports whether every subject is a device: a project among them concerns all.
func (d detail) quotaOfOneDevice() bool {
	for _, v := range d.Violations {
		if !strings.Contains(strings.ToLower(v.Subject), "device") {
			return false
		}
	}
	return len(d.Violations) > 0
}

// verdict reads one answer; the reason is empty for Accepted. again is whether
// FCM has refused an earlier access token too, without taking one since: a first refusal
// is worth another token, a second one is the app's trouble. platform is the device's, as in providers.Push.
func verdict(a answer, again bool, platform string) (providers.Verdict, string) {
	switch {
	case a.status == http.StatusOK && a.name != "":
		return providers.Accepted, ""
	case a.status < 300:
		return providers.Unavailable, "bad_answer" // it may have been taken; a second wake does no harm
	case a.oursRefused():
		if again {
			return providers.CredentialBad, a.reason()
		}
		return providers.ConnectionLost, a.reason()
	case a.status == http.StatusTooManyRequests && a.oneDevice:
		return providers.DeviceThrottled, a.reason()
	case a.status == http.StatusTooManyRequests:
		return providers.AppThrottled, a.reason()
	case !a.known:
		return providers.Unavailable, a.reason()
	}
	return refusal(a, platform)
}

// refusal reads a refusal in Google's own JSON.
func refusal(a answer, platform string) (providers.Verdict, string) {
	switch a.status {
	case http.StatusNotFound:
		if a.code == "UNREGISTERED" {
			return providers.TokenDead, a.reason()
		}
		return providers.Unavailable, a.reason() // not about this token, whatever it is
	case http.StatusBadRequest:
		if a.badToken {
			return providers.TokenSuspect, "invalid_token"
		}
		return providers.Rejected, a.reason()
	case http.StatusForbidden:
		if a.code == "SENDER_ID_MISMATCH" {
			return providers.TokenSuspect, a.reason()
		}
		return providers.CredentialBad, a.whyNot()
	case http.StatusUnauthorized:
		// Google's own access to Apple or to a browser's push service: the project lacks a key there. The
		// app's devices on that way wait for it, and its Android devices are well: one of them that turns out
		// to be registered as what it is not must not stop the others.
		if onward(platform) {
			return providers.CredentialBad, a.reason()
		}
		return providers.Unavailable, a.reason()
	case http.StatusRequestTimeout:
		return providers.Unavailable, a.reason()
	}
	if a.status >= 400 && a.status < 500 {
		return providers.Rejected, a.reason()
	}
	return providers.Unavailable, a.reason()
}

// reason is FCM's own code, else Google's, else the status.
func (a answer) reason() string {
	switch {
	case a.code != "":
		return a.code
	case a.category != "":
		return a.category
	default:
		return fmt.Sprintf("http_%d", a.status)
	}
}

// onward reports whether Google hands pushes for the platform on to somebody else.
func onward(platform string) bool {
	return platform == "ios" || platform == "macos" || platform == "web"
}

// whyNot is the reason of a refused project: Google's finer word where it is one that tells what to do.
func (a answer) whyNot() string {
	switch a.info {
	case "SERVICE_DISABLED", "IAM_PERMISSION_DENIED", "CONSUMER_INVALID", "CONSUMER_SUSPENDED", "BILLING_DISABLED", "USER_PROJECT_DENIED":
		return a.info
	default:
		return a.reason()
	}
}

// oursRefused reports whether FCM refused our access token, and not Apple or a browser's service Google's.
func (a answer) oursRefused() bool {
	return a.status == http.StatusUnauthorized && a.code != "THIRD_PARTY_AUTH_ERROR" && a.code != "APNS_AUTH_ERROR"
}

// judge makes the outcome of a record, and mends what can be mended before the next push.
func (c *Client) judge(rec *record, platform string) providers.Outcome {
	if rec.access != nil {
		return rec.access.outcome()
	}
	if f := rec.failure; f != nil {
		out := providers.Outcome{Verdict: providers.Unavailable, Reason: f.Reason, Status: rec.reply.Status}
		if f.Lost {
			out.Verdict = providers.ConnectionLost
		}
		return out
	}
	a := read(rec.reply.Status, rec.reply.Body)
	again := false
	if a.oursRefused() {
		again = c.access.refused(rec.generation)
	} else {
		c.access.worked(rec.generation)
	}
	v, reason := verdict(a, again, platform)
	out := providers.Outcome{Verdict: v, Reason: reason, Status: a.status}
	if v != providers.Accepted {
		out.RetryAfter = wire.RetryAfter(rec.reply.Header.Get("Retry-After"), time.Now())
	}
	return out
}

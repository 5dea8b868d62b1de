package apns

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"rouse/providers"
	"rouse/providers/wire"
)

// refusal is the table of Apple's reasons: what each means, and the one status it comes with.
// 0 stands for a reason nobody knows.
func refusal(reason string) (status int, v providers.Verdict) {
	switch reason {
	// Our request is wrong.
	case "BadCollapseId", "BadExpirationDate", "BadMessageId", "BadPriority", "InvalidPushType",
		"DuplicateHeaders", "PayloadEmpty", "MissingDeviceToken":
		return 400, providers.Rejected
	case "BadPath":
		return 404, providers.Rejected
	case "MethodNotAllowed":
		return 405, providers.Rejected
	case "PayloadTooLarge":
		return 413, providers.Rejected
	// The token, or our idea of where it belongs.
	case "BadDeviceToken", "DeviceTokenNotForTopic":
		return 400, providers.TokenSuspect
	case "Unregistered", "ExpiredToken":
		return 410, providers.TokenDead
	// The app's credential or configuration. The last two are one: as documented, and as seen live.
	case "BadTopic", "MissingTopic", "TopicDisallowed":
		return 400, providers.CredentialBad
	case "BadCertificate", "BadCertificateEnvironment", "Forbidden", "MissingProviderToken", "InvalidProviderToken",
		"ExpiredProviderToken", "UnrelatedKeyIdInToken", "BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken":
		return 403, providers.CredentialBad
	// Too much: of new provider tokens, of pushes to one device.
	case "TooManyProviderTokenUpdates":
		return 429, providers.AppThrottled
	case "TooManyRequests":
		return 429, providers.DeviceThrottled
	// Their side, or the connection.
	case "IdleTimeout":
		return 400, providers.ConnectionLost
	case "InternalServerError":
		return 500, providers.Unavailable
	case "ServiceUnavailable":
		return 503, providers.Unavailable
	case "Shutdown":
		return 503, providers.ConnectionLost
	default:
		return 0, ""
	}
}

// tokenUpdateWait is how long an app rests after Apple saw too many new tokens;
// Apple names no time, and the token itself stays as it is.
const tokenUpdateWait = 10 * time.Minute

// verdict reads one answer. again is whether the connection was already
// replaced because of an expired token or an unrelated key, without a success since: a
// first such answer is worth another connection, a second one is the app's trouble.
// A reason nobody knows, or one with a strange status, is judged by its
// status, and never touches the token.
func verdict(status int, reason string, again bool) providers.Verdict {
	if status == 200 {
		return providers.Accepted
	}
	if usual, v := refusal(reason); v != "" && usual == status {
		if heals(reason) && !again {
			return providers.ConnectionLost
		}
		return v
	}
	switch {
	case status == 403: // every 403 Apple documents is about the credential
		return providers.CredentialBad
	case status == 429: // the narrower of the two
		return providers.DeviceThrottled
	case status >= 400 && status < 500:
		return providers.Rejected
	default:
		return providers.Unavailable
	}
}

// heals reports whether a new connection with a fresh token may cure the reason.
func heals(reason string) bool {
	return reason == "ExpiredProviderToken" || reason == "UnrelatedKeyIdInToken"
}

// binds reports whether a refusal sticks to the connection it came on: Apple
// ties team, key and topics to a connection by its first push, and what has
// gone wrong once goes wrong until it is closed.
func binds(v providers.Verdict, reason string) bool {
	return v == providers.CredentialBad || heals(reason) || reason == "TooManyProviderTokenUpdates" || reason == "Shutdown"
}

// spoken is what an answer's body says.
type spoken struct {
	reason string
	at     time.Time
}

// listen reads a body; one that is not Apple's JSON says nothing.
func listen(body []byte) spoken {
	var said struct {
		Reason    string          `json:"reason"`
		Timestamp json.RawMessage `json:"timestamp"`
	}
	if len(body) == 0 || json.Unmarshal(body, &said) != nil {
		return spoken{}
	}
	s := spoken{reason: word(said.Reason)}
	ms, err := strconv.ParseInt(strings.Trim(string(said.Timestamp), `"`), 10, 64)
	if err == nil && ms > 0 {
		s.at = time.UnixMilli(ms)
	}
	return s
}

// word lets through what can be one of Apple's reasons, so that nothing else reaches a log.
func word(s string) string {
	if len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool { return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') }) {
		return ""
	}
	return s
}

// judge makes the outcome of a record, and mends what can be mended before the next push.
func (c *Client) judge(rec *record) providers.Outcome {
	said := listen(rec.reply.Body)
	if rec.failure != nil && (rec.reply.Status == 0 || rec.reply.Status != 200 && said.reason == "") {
		return c.judgeFailure(rec)
	}
	status, epoch := rec.reply.Status, rec.reply.Epoch
	v := verdict(status, said.reason, c.healedBefore(epoch))
	out := providers.Outcome{Verdict: v, Reason: said.reason, Status: status}
	if v != providers.Accepted && out.Reason == "" {
		out.Reason = fmt.Sprintf("http_%d", status)
	}
	out.RetryAfter = wire.RetryAfter(rec.reply.Header.Get("Retry-After"), time.Now())
	switch {
	case v == providers.Accepted:
		c.accepted(epoch)
		out.RetryAfter = 0
	case v == providers.TokenDead:
		out.ProviderTime = said.at
	case v == providers.AppThrottled && out.RetryAfter == 0:
		out.RetryAfter = tokenUpdateWait
	}
	if binds(v, said.reason) {
		c.mend(epoch, said.reason)
	}
	c.dismiss(out)
	return out
}

// judgeFailure reads a request that has no answer.
func (c *Client) judgeFailure(rec *record) providers.Outcome {
	f := rec.failure
	if f.Reason == wire.Dismissed {
		return c.dismissed()
	}
	out := providers.Outcome{Verdict: providers.Unavailable, Reason: f.Reason, Status: rec.reply.Status}
	if f.Lost {
		out.Verdict = providers.ConnectionLost
	}
	if c.sdk.Token == nil && aboutCertificate(f) {
		out.Verdict, out.Reason = providers.CredentialBad, certificateRefused
		c.dismiss(out)
		return out
	}
	// Apple turns whole connections away for a bad credential, and says so only as it goes.
	if said := word(f.Said); said != "" {
		if status, v := refusal(said); v == providers.CredentialBad {
			out.Verdict, out.Reason = verdict(status, said, c.healedBefore(f.Epoch)), said
			c.mend(f.Epoch, said)
			c.dismiss(out)
		}
	}
	return out
}

// certificateRefused is our word for a certificate that the TLS handshake ends with; Apple has none for it.
const certificateRefused = "certificate_refused"

// aboutCertificate reports whether the server ended TLS because of our certificate. Which alert it was, the TLS library tells
// in words alone.
func aboutCertificate(err error) bool {
	var alert *net.OpError
	return errors.As(err, &alert) && alert.Op == "remote error" && strings.Contains(alert.Error(), "certificate")
}

package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
)

// The faults of an Action. Those marked * do not process the request: nothing is
// delivered and the log entry has status 0.
const (
	// FaultHang never answers this request *.
	FaultHang = "hang"
	// FaultReset ends the TCP connection with RST *.
	FaultReset = "reset"
	// FaultGoaway answers, and says GOAWAY naming this as the last stream.
	FaultGoaway = "goaway"
	// FaultGoawayLower says GOAWAY with a last stream below this one, which stays unanswered *. APNs only.
	FaultGoawayLower = "goaway_lower"
	// FaultGoawayZero says GOAWAY with last stream 0 and the Reason as JSON debug data, and hangs up *. APNs only.
	FaultGoawayZero = "goaway_zero"
	// FaultRSTRefused resets the stream with REFUSED_STREAM *. APNs only.
	FaultRSTRefused = "rst_refused"
	// FaultRSTInternal resets the stream with INTERNAL_ERROR *; on HTTP/1.1 the connection closes.
	FaultRSTInternal = "rst_internal"
	// FaultRSTProtocol resets the stream with PROTOCOL_ERROR *. APNs only.
	FaultRSTProtocol = "rst_protocol"
	// FaultRSTCancel resets the stream with CANCEL *. APNs only.
	FaultRSTCancel = "rst_cancel"
	// FaultRSTCalm resets the stream with ENHANCE_YOUR_CALM *. APNs only.
	FaultRSTCalm = "rst_calm"
	// FaultBlackhole keeps the connection open and neither reads nor writes on it any more *.
	FaultBlackhole = "blackhole"
	// FaultCloseAfter processes the request and closes the connection before the answer.
	FaultCloseAfter = "close_after"
	// FaultSlowBody sends the headers at once and the body a byte at a time, Delay apart (20 ms if 0).
	FaultSlowBody = "slow_body"
	// FaultTruncate sends the headers and half of the body, and resets the stream; on HTTP/1.1 the connection closes.
	FaultTruncate = "truncate"
)

// The faults that meet a connection before its first request. A rule with one of
// them counts connections instead of requests.
const (
	// FaultRefuse ends the connection with RST as soon as it is there.
	FaultRefuse = "refuse"
	// FaultTLSStall does not begin the TLS handshake for as long as Delay; if that is 0, ever.
	FaultTLSStall = "tls_stall"
	// FaultWrongCertificate shows a certificate that is no good: signed by an unknown
	// authority, or with the Reason "expired" or "name" just that.
	FaultWrongCertificate = "wrong_certificate"
	// FaultHTTP1Only offers http/1.1 and no h2 in ALPN.
	FaultHTTP1Only = "http1_only"
	// FaultLateSettings sends the SETTINGS, and all that follows, Delay late (1 s if 0). APNs only.
	FaultLateSettings = "late_settings"
	// FaultTinyWindow lets the client send 16 bytes of a body at a time. APNs only.
	FaultTinyWindow = "tiny_window"
)

// What an Action's Then says of a connection after GOAWAY.
const (
	// ThenStay leaves it open until the client closes it.
	ThenStay = "stay"
	// ThenClose ends it at once; what is under way on it, this request too, stays unanswered.
	ThenClose = "close"
)

// clientGone in an Entry means that the client gave up during a Delay.
const clientGone = "client_gone"

// Defaults of the faults that take time or room.
const (
	dribbleStep  = 20 * time.Millisecond
	settingsLate = time.Second
	tinyWindow   = 16
)

// mostStreams bounds the streams of an action: far more than any provider allows.
const mostStreams = 1_000_000

// resetCode is what each RST_STREAM says.
var resetCode = map[string]http2.ErrCode{
	FaultRSTRefused: http2.ErrCodeRefusedStream, FaultRSTInternal: http2.ErrCodeInternal,
	FaultRSTProtocol: http2.ErrCodeProtocol, FaultRSTCancel: http2.ErrCodeCancel, FaultRSTCalm: http2.ErrCodeEnhanceYourCalm,
}

var (
	apnsOnly = []string{
		FaultGoawayLower, FaultGoawayZero, FaultRSTRefused, FaultRSTProtocol, FaultRSTCancel, FaultRSTCalm, FaultLateSettings, FaultTinyWindow,
	}
	greetings = []string{FaultRefuse, FaultTLSStall, FaultWrongCertificate, FaultHTTP1Only, FaultLateSettings, FaultTinyWindow}
	anywhere  = []string{FaultHang, FaultReset, FaultGoaway, FaultRSTInternal, FaultBlackhole, FaultCloseAfter, FaultSlowBody, FaultTruncate}
	faults    = slices.Compact(slices.Sorted(slices.Values(slices.Concat(anywhere, apnsOnly, greetings))))
)

// Action is what a rule does to a request. Status, Reason or Body replace the
// answer, whatever the request deserved. An Action without them leaves the answer
// as it was.
type Action struct {
	// Delay passes before the request is processed. In JSON a string such as "1.5s".
	Delay time.Duration `json:"-"`
	// Status is the HTTP status; 0 takes the one that belongs to Reason, else 200.
	Status int `json:"status,omitempty"`
	// Reason is the APNs reason, the FCM error code or the OAuth error. FCM also knows
	// UNAUTHENTICATED, PERMISSION_DENIED, IAM_PERMISSION_DENIED, NOT_FOUND, RATE_LIMIT_EXCEEDED, QUOTA_EXCEEDED_DEVICE and
	// QUOTA_EXCEEDED_TOPIC.
	Reason string `json:"reason,omitempty"`
	// Body replaces the body; text/html if it begins with "<", else JSON.
	Body string `json:"body,omitempty"`
	// RetryAfter is the Retry-After header as it stands.
	RetryAfter string `json:"retry_after,omitempty"`
	// RetryAfterDate puts a date so long from now into Retry-After, if RetryAfter is empty. In JSON a string such as "30s".
	RetryAfterDate time.Duration `json:"-"`
	// Timestamp goes with an APNs 410; zero leaves it out.
	Timestamp time.Time `json:"timestamp,omitzero"`
	// TimestampIn is a Timestamp so long from the request, negative for the past. In JSON a string such as "-1h".
	TimestampIn time.Duration `json:"-"`
	// TimestampText writes the timestamp as a JSON string.
	TimestampText bool `json:"timestamp_text,omitempty"`
	// Fault is one of the Fault constants, or empty.
	Fault string `json:"fault,omitempty"`
	// Latency is drawn anew for each request and passes before it is processed, beside Delay.
	Latency Latency `json:"latency,omitzero"`
	// Streams is a new MAX_CONCURRENT_STREAMS for the connection, at most 1000000, sent before the answer; 0 for none. APNs only.
	Streams int `json:"streams,omitempty"`
	// Code is the error code of a GOAWAY, such as ENHANCE_YOUR_CALM; NO_ERROR if empty. APNs only.
	Code string `json:"code,omitempty"`
	// Debug is the debug data of a GOAWAY; if empty, a goaway_lower or goaway_zero carries Reason as JSON, or Body. APNs only.
	Debug string `json:"debug,omitempty"`
	// Then is what becomes of the connection after a GOAWAY: empty for an end once it
	// is idle, ThenStay or ThenClose. APNs only.
	Then string `json:"then,omitempty"`
	// Location is the header of a redirect. FCM and Token only.
	Location string `json:"location,omitempty"`
	// Gzip compresses the body, if the client accepts that. FCM and Token only.
	Gzip bool `json:"gzip,omitempty"`
}

// plainAction is Action without its methods.
type plainAction Action

// wireAction is how an Action looks in JSON.
type wireAction struct {
	Delay          string `json:"delay,omitempty"`
	RetryAfterDate string `json:"retry_after_date,omitempty"`
	TimestampIn    string `json:"timestamp_in,omitempty"`
	plainAction
}

// MarshalJSON writes durations as strings such as "1.5s".
func (a Action) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireAction{
		Delay: spell(a.Delay), RetryAfterDate: spell(a.RetryAfterDate), TimestampIn: spell(a.TimestampIn), plainAction: plainAction(a),
	})
}

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields; the
// error names every mistake.
func (a *Action) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	var read Action
	if wrong := readObject(data, "action.", read.members()); len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "; "))
	}
	*a = read
	return nil
}

// spell writes a duration, nothing for 0.
func spell(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// answers reports whether the action replaces the answer.
func (a Action) answers() bool { return a.Status != 0 || a.Reason != "" || a.Body != "" }

// greets reports whether the action meets connections instead of requests.
func (a Action) greets() bool { return slices.Contains(greetings, a.Fault) }

// onAPNsAlone reports whether the fake Google could not do it.
func (a Action) onAPNsAlone() bool {
	return slices.Contains(apnsOnly, a.Fault) || a.Streams != 0 || a.Code != "" || a.Debug != "" || a.Then != ""
}

// processed reports whether the request has its effect in spite of the fault.
func (a Action) processed() bool {
	switch a.Fault {
	case "", FaultGoaway, FaultCloseAfter, FaultSlowBody, FaultTruncate:
		return true
	}
	return false
}

// died is the time of a 410 that came at now.
func (a Action) died(now time.Time) time.Time {
	if a.TimestampIn != 0 {
		return now.Add(a.TimestampIn)
	}
	return a.Timestamp
}

// after is the Retry-After header of an answer given at now.
func (a Action) after(now time.Time) string {
	if a.RetryAfter == "" && a.RetryAfterDate != 0 {
		return now.Add(a.RetryAfterDate).UTC().Format(http.TimeFormat)
	}
	return a.RetryAfter
}

// errorCode is the HTTP/2 code of a GOAWAY.
func (a Action) errorCode() http2.ErrCode { return http2Codes[a.Code] }

// http2Codes are the error codes by name; the empty name is NO_ERROR.
var http2Codes = func() map[string]http2.ErrCode {
	codes := map[string]http2.ErrCode{"": http2.ErrCodeNo}
	for c := http2.ErrCodeNo; c <= http2.ErrCodeHTTP11Required; c++ {
		codes[c.String()] = c
	}
	return codes
}()

// mistakes are sentences about what is wrong with the action.
func (a Action) mistakes() []string {
	var wrong []string
	is := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	is(a.Fault != "" && !slices.Contains(faults, a.Fault), "action.fault is %q, not one of %s", a.Fault, strings.Join(faults, ", "))
	is(a.Status != 0 && (a.Status < 200 || a.Status > 599), "action.status is %d, not between 200 and 599", a.Status)
	is(a.Delay < 0, "action.delay is %v, not 0 or more", a.Delay)
	is(a.RetryAfterDate < 0, "action.retry_after_date is %v, not 0 or more", a.RetryAfterDate)
	is(!httpguts.ValidHeaderFieldValue(a.RetryAfter), "action.retry_after has a line break or another character that a header cannot hold")
	is(!httpguts.ValidHeaderFieldValue(a.Location), "action.location has a line break or another character that a header cannot hold")
	is(a.Streams < 0 || a.Streams > mostStreams, "action.streams is %d, not between 0 and %d", a.Streams, mostStreams)
	_, known := http2Codes[a.Code]
	is(!known, "action.code is %q, not an HTTP/2 error code such as ENHANCE_YOUR_CALM", a.Code)
	is(!slices.Contains([]string{"", ThenStay, ThenClose}, a.Then), "action.then is %q, not stay, close or empty", a.Then)
	goes := strings.HasPrefix(a.Fault, FaultGoaway)
	is(!goes && (a.Code != "" || a.Debug != "" || a.Then != ""), "action.code, debug and then go with a goaway fault")
	is(a.Fault == FaultWrongCertificate && !slices.Contains([]string{"", "expired", "name"}, a.Reason), "action.reason of wrong_certificate is %q, not expired, name or empty", a.Reason)
	if err := a.Latency.check(); err != nil {
		wrong = append(wrong, "action.latency: "+err.Error())
	}
	return wrong
}

package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of FCM.
const (
	dataLimit = 4096
	ttlLimit  = 2419200 // seconds: four weeks
)

var (
	fcmTokenForm = regexp.MustCompile(`^[A-Za-z0-9_-]{11,}:[A-Za-z0-9_-]{100,}$`)
	capital      = regexp.MustCompile(`[A-Z]`)
	ttlForm      = regexp.MustCompile(`^([0-9]+)(\.[0-9]{1,9})?s$`)
	reservedData = []string{"from", "message_type", "gcm", "google", "notification_foreground"}
)

// sendBody is what messages:send takes. Parts that only the phone reads stay raw.
type sendBody struct {
	ValidateOnly bool        `json:"validate_only"`
	Message      *fcmMessage `json:"message"`
}

type fcmMessage struct {
	Name         string            `json:"name"`
	Token        string            `json:"token"`
	Topic        string            `json:"topic"`
	Condition    string            `json:"condition"`
	Data         map[string]string `json:"data"`
	Notification *fcmNotification  `json:"notification"`
	Android      *fcmAndroid       `json:"android"`
	APNS         *fcmAPNS          `json:"apns"`
	Webpush      *fcmWebpush       `json:"webpush"`
	FCMOptions   json.RawMessage   `json:"fcm_options"`
}

type fcmNotification struct {
	Title string `json:"title"`
	Body  string `json:"body"`
	Image string `json:"image"`
}

type fcmAndroid struct {
	CollapseKey           string                     `json:"collapse_key"`
	Priority              string                     `json:"priority"`
	TTL                   string                     `json:"ttl"`
	RestrictedPackageName string                     `json:"restricted_package_name"`
	Data                  map[string]string          `json:"data"`
	Notification          map[string]json.RawMessage `json:"notification"`
	FCMOptions            json.RawMessage            `json:"fcm_options"`
	DirectBootOK          bool                       `json:"direct_boot_ok"`
	BandwidthOK           bool                       `json:"bandwidth_constrained_ok"`
	SatelliteOK           bool                       `json:"restricted_satellite_ok"`
}

type fcmAPNS struct {
	Headers           map[string]string          `json:"headers"`
	Payload           map[string]json.RawMessage `json:"payload"`
	FCMOptions        json.RawMessage            `json:"fcm_options"`
	LiveActivityToken string                     `json:"live_activity_token"`
}

type fcmWebpush struct {
	Headers      map[string]string          `json:"headers"`
	Data         map[string]string          `json:"data"`
	Notification map[string]json.RawMessage `json:"notification"`
	FCMOptions   json.RawMessage            `json:"fcm_options"`
}

// judgeSend applies the checks: project, caller, message, token.
func (s *Sim) judgeSend(r *fcmRequest) answer {
	r.logged = string(r.body)
	r.secret = bearerToken(r.Header.Get("Authorization"))
	message, wrong := readMessage(r.body)
	if message != nil && message.Message != nil {
		r.subject = message.Message.Token
	}
	if ans, ok := s.checkCaller(r); !ok {
		return ans
	}
	if wrong != nil {
		return *wrong
	}
	for _, check := range []func(*fcmMessage) *answer{checkTarget, checkAndroid, checkData, checkSize} {
		if ans := check(message.Message); ans != nil {
			return *ans
		}
	}
	if ans := s.checkFCMToken(r, message.Message); ans != nil {
		return *ans
	}
	return s.accepted(r, message)
}

// checkCaller answers for project and bearer; ok means that they are good.
func (s *Sim) checkCaller(r *fcmRequest) (answer, bool) {
	if !s.accounts.exists(r.project) {
		return fcmError("NOT_FOUND", 0, r.project, "No such project."), false
	}
	owner, live := s.accounts.spend(r.secret, r.at)
	if !live {
		return fcmError("UNAUTHENTICATED", 0, r.project, "The access token is missing, unknown or expired."), false
	}
	if owner != r.project {
		return fcmError("IAM_PERMISSION_DENIED", 0, r.project, "Permission 'cloudmessaging.messages.create' denied: the access token belongs to another project."), false
	}
	return answer{}, true
}

func checkTarget(m *fcmMessage) *answer {
	targets := 0
	if m != nil {
		for _, target := range []string{m.Token, m.Topic, m.Condition} {
			if target != "" {
				targets++
			}
		}
	}
	if targets == 1 {
		return nil
	}
	ans := badRequest("message.token", "Exactly one of token, topic and condition must be given.")
	return &ans
}

func checkAndroid(m *fcmMessage) *answer {
	if m.Android == nil {
		return nil
	}
	if !slices.Contains([]string{"", "NORMAL", "HIGH"}, strings.ToUpper(m.Android.Priority)) {
		ans := badRequest("message.android.priority", "The priority must be NORMAL or HIGH.")
		return &ans
	}
	if m.Android.TTL == "" {
		return nil
	}
	parts := ttlForm.FindStringSubmatch(m.Android.TTL)
	if parts != nil {
		if seconds, err := strconv.ParseInt(parts[1], 10, 64); err == nil && seconds <= ttlLimit {
			return nil
		}
	}
	ans := badRequest("message.android.ttl", "The ttl must be a duration such as 3600s, at most four weeks.")
	return &ans
}

func checkData(m *fcmMessage) *answer {
	for field, data := range dataOf(m) {
		for key := range data {
			if key == "" || slices.Contains(reservedData, key) || strings.HasPrefix(key, "google") || strings.HasPrefix(key, "gcm.") {
				ans := badRequest(field, fmt.Sprintf("Invalid data payload key: %s", key))
				return &ans
			}
		}
	}
	return nil
}

func dataOf(m *fcmMessage) map[string]map[string]string {
	all := map[string]map[string]string{"message.data": m.Data}
	if m.Android != nil {
		all["message.android.data"] = m.Android.Data
	}
	return all
}

// checkSize refuses what is too large, with no details, as Google does.
func checkSize(m *fcmMessage) *answer {
	data := m.Data
	if m.Android != nil && len(m.Android.Data) > 0 {
		data = m.Android.Data
	}
	size := 0
	for key, value := range data {
		size += len(key) + len(value)
	}
	if m.Notification != nil {
		size += len(m.Notification.Title) + len(m.Notification.Body)
	}
	apns := 0
	if m.APNS != nil {
		payload, _ := json.Marshal(m.APNS.Payload)
		apns = len(payload)
	}
	if size <= dataLimit && apns <= payloadLimit {
		return nil
	}
	ans := fcmFailure(http.StatusBadRequest, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "The message is too large.", nil)
	return &ans
}

// checkFCMToken answers for the target token. Topics and conditions have none.
func (s *Sim) checkFCMToken(r *fcmRequest, m *fcmMessage) *answer {
	if m.Token == "" {
		return nil
	}
	state := s.phones.look(FCM, m.Token)
	var ans answer
	switch {
	case !state.known && !fcmTokenForm.MatchString(m.Token):
		ans = fcmError("INVALID_ARGUMENT", 0, r.project, "The registration token is not a valid FCM registration token")
	case state.known && state.owner != r.project:
		ans = fcmError("SENDER_ID_MISMATCH", 0, r.project, "The registration token belongs to another project.")
	case !state.known || state.dead:
		ans = fcmError("UNREGISTERED", 0, r.project, "The registration token is not registered any more.")
	default:
		return nil
	}
	return &ans
}

// accepted names the message, and hands it to the phone unless it was a dry run.
func (s *Sim) accepted(r *fcmRequest, b *sendBody) answer {
	id := "fake_message_id"
	if !b.ValidateOnly {
		id = fmt.Sprintf("0:%d%%%08x%08x", r.at.UnixMicro(), rand.Uint32(), rand.Uint32())
	}
	if !b.ValidateOnly && b.Message.Token != "" {
		r.accept = func() { s.phones.deliver(r.delivered(b.Message)) }
	}
	body, _ := json.MarshalIndent(map[string]string{"name": "projects/" + r.project + "/messages/" + id}, "", "  ")
	return answer{status: http.StatusOK, body: body}
}

func (r *fcmRequest) delivered(m *fcmMessage) parcel {
	headers := r.headers()
	delete(headers, "authorization")
	p := parcel{
		Delivered: Delivered{Provider: FCM, Token: m.Token, Kind: m.kind(), Body: asJSON(r.body), Headers: headers},
		life:      m.life(), high: m.kind() == "high",
	}
	p.key, p.collapsible = m.collapseKey()
	return p
}

// life is how long FCM may keep the message.
func (m *fcmMessage) life() time.Duration {
	if m.Android == nil || m.Android.TTL == "" {
		return googleKeeps
	}
	d, _ := time.ParseDuration(m.Android.TTL) // checked before
	return d
}

// collapseKey is what newer messages replace this one by. One that Google shows to
// the user collapses with others of the app, unless it has a key of its own.
func (m *fcmMessage) collapseKey() (key string, collapsible bool) {
	if m.Android != nil && m.Android.CollapseKey != "" {
		return m.Android.CollapseKey, true
	}
	shown := m.Notification != nil || m.Android != nil && m.Android.Notification != nil
	return "", shown
}

// kind is high or normal. Unset, a message with a notification counts as high and
// any other as normal; on an Apple device the APNs priority decides.
func (m *fcmMessage) kind() string {
	switch {
	case m.Android != nil && m.Android.Priority != "":
		return strings.ToLower(m.Android.Priority)
	case m.APNS != nil && m.APNS.Headers["apns-priority"] == "10":
		return "high"
	case m.APNS != nil && m.APNS.Headers["apns-priority"] != "":
		return "normal"
	case m.Notification != nil:
		return "high"
	}
	return "normal"
}

// decodeStrict reads one JSON value and refuses unknown fields and anything behind it.
func decodeStrict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return fmt.Errorf("there is more than one JSON value")
	}
	return nil
}

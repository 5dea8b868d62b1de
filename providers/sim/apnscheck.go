package sim

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of APNs.
const (
	payloadLimit    = 4096
	voipLimit       = 5120
	collapseIDLimit = 64
)

const devicePath = "/3/device/"

// apnsStatus is the HTTP status of each reason.
var apnsStatus = map[string]int{
	"BadCollapseId": 400, "BadDeviceToken": 400, "BadExpirationDate": 400, "BadMessageId": 400, "BadPriority": 400,
	"BadTopic": 400, "DeviceTokenNotForTopic": 400, "DuplicateHeaders": 400, "IdleTimeout": 400, "InvalidPushType": 400,
	"MissingDeviceToken": 400, "MissingTopic": 400, "PayloadEmpty": 400, "TopicDisallowed": 400,
	"BadCertificate": 403, "BadCertificateEnvironment": 403, "ExpiredProviderToken": 403, "Forbidden": 403,
	"InvalidProviderToken": 403, "MissingProviderToken": 403, "UnrelatedKeyIdInToken": 403,
	"BadEnvironmentKeyIdInToken": 403, "BadEnvironmentKeyInToken": 403,
	"BadPath": 404, "MethodNotAllowed": 405, "ExpiredToken": 410, "Unregistered": 410, "PayloadTooLarge": 413,
	"TooManyProviderTokenUpdates": 429, "TooManyRequests": 429,
	"InternalServerError": 500, "ServiceUnavailable": 503, "Shutdown": 503,
}

// topicSuffix is what the topic of each push type ends in. A type that is not
// here is unknown; mdm topics follow no pattern.
var topicSuffix = map[string]string{
	"alert": "", "background": "", "mdm": "", "voip": ".voip", "complication": ".complication",
	"fileprovider": ".pushkit.fileprovider", "location": ".location-query", "liveactivity": ".push-type.liveactivity",
	"pushtotalk": ".voip-ptt", "controls": ".push-type.controls", "widgets": ".push-type.widgets",
}

var (
	topicForm = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
	uuidForm  = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
)

// apnsRequest is one complete request.
type apnsRequest struct {
	stream       uint32
	method, path string
	token        string
	header       map[string]string // the first value of each, without authorization
	bearer       string            // the authorization header as it came
	repeated     string            // a single-value header that came twice, or empty
	body         []byte
	good         bool // nothing is wrong with it
	proven       bool // the connection has shown a valid JWT
	at           time.Time
}

// refusal is a reason and the timestamp of a 410; the zero value means none.
type refusal struct {
	reason string
	died   time.Time
}

// judge applies the checks in the order Apple is believed to: who is asking comes
// before anything about the token.
func (s *apnsServer) judge(r *apnsRequest, who *session) refusal {
	for _, check := range []func() string{
		func() string { return checkPath(r) },
		func() string { return who.check(s.sim.keys, s.environment(), r) },
		func() string { return s.checkTopic(r, who) },
		func() string { return checkHeaders(r) },
		func() string { return checkBody(r) },
	} {
		if reason := check(); reason != "" {
			return refusal{reason: reason}
		}
	}
	return s.checkToken(r)
}

func checkPath(r *apnsRequest) string {
	switch {
	case r.method != "POST":
		return "MethodNotAllowed"
	case !strings.HasPrefix(r.path, devicePath):
		return "BadPath"
	case r.token == "":
		return "MissingDeviceToken"
	case r.repeated != "":
		return "DuplicateHeaders"
	}
	return ""
}

func (s *apnsServer) checkTopic(r *apnsRequest, who *session) string {
	topic, kind := r.header["apns-topic"], r.header["apns-push-type"]
	base, suffix := splitTopic(topic)
	want, known := topicSuffix[kind]
	switch {
	case topic == "":
		return "MissingTopic"
	case !topicForm.MatchString(topic):
		return "BadTopic"
	case known && kind != "mdm" && suffix != want:
		return "BadTopic"
	case who.certificate != nil && !who.certificate.allows(topic):
		return "BadTopic"
	case who.certificate == nil && len(who.key.topics) > 0 && !slices.Contains(who.key.topics, base) && !slices.Contains(who.key.topics, topic):
		return "TopicDisallowed"
	}
	return ""
}

// splitTopic cuts the suffix of a push type from a topic.
func splitTopic(topic string) (base, suffix string) {
	for _, s := range topicSuffix {
		if s != "" && strings.HasSuffix(topic, s) {
			return strings.TrimSuffix(topic, s), s
		}
	}
	return topic, ""
}

func checkHeaders(r *apnsRequest) string {
	id, hasID := r.header["apns-id"]
	expiration, hasExpiration := r.header["apns-expiration"]
	priority, hasPriority := r.header["apns-priority"]
	kind, hasKind := r.header["apns-push-type"]
	_, known := topicSuffix[kind]
	switch {
	case hasID && !uuidForm.MatchString(id):
		return "BadMessageId"
	case hasExpiration && !isExpiration(expiration):
		return "BadExpirationDate"
	case hasPriority && !slices.Contains([]string{"1", "5", "10"}, priority):
		return "BadPriority"
	case hasKind && !known:
		return "InvalidPushType"
	case kind == "background" && priority == "10":
		return "BadPriority"
	case len(r.header["apns-collapse-id"]) > collapseIDLimit:
		return "BadCollapseId"
	}
	return ""
}

func isExpiration(s string) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	return err == nil && n >= 0
}

func checkBody(r *apnsRequest) string {
	limit := payloadLimit
	if r.header["apns-push-type"] == "voip" {
		limit = voipLimit
	}
	switch {
	case len(r.body) == 0:
		return "PayloadEmpty"
	case len(r.body) > limit:
		return "PayloadTooLarge"
	}
	return ""
}

func (s *apnsServer) checkToken(r *apnsRequest) refusal {
	state := s.sim.phones.look(APNs, r.token)
	base, _ := splitTopic(r.header["apns-topic"])
	switch {
	case !state.known || state.sandbox != s.sandbox:
		return refusal{reason: "BadDeviceToken"}
	case state.dead:
		return refusal{reason: "Unregistered", died: state.diedAt}
	case state.owner != base && state.owner != r.header["apns-topic"]:
		return refusal{reason: "DeviceTokenNotForTopic"}
	}
	return refusal{}
}

// advise lists what Apple would take but warns against.
func advise(r *apnsRequest) []string {
	var notes []string
	note := func(sentence string) { notes = append(notes, sentence) }
	var payload struct {
		APS map[string]json.RawMessage `json:"aps"`
	}
	if err := json.Unmarshal(r.body, &payload); err != nil {
		note("the payload is not a JSON object with an aps dictionary")
	}
	kind, hasKind := r.header["apns-push-type"]
	if !hasKind {
		note("apns-push-type is missing")
	}
	if kind == "background" {
		if r.header["apns-priority"] == "" {
			note("a background push without apns-priority counts as priority 10, which is an error")
		}
		if string(payload.APS["content-available"]) != "1" || len(payload.APS) != 1 {
			note("a background push must have content-available 1 in aps, and nothing else")
		}
	}
	if kind == "alert" && payload.APS["alert"] == nil && payload.APS["badge"] == nil && payload.APS["sound"] == nil {
		note("an alert push has neither alert, badge nor sound")
	}
	if !isHex(r.token) {
		note("the device token is not hex")
	}
	return notes
}

// session is what APNs ties to one connection: the client's certificate, or team,
// key, and how often the provider token changed. One goroutine uses it.
type session struct {
	certificate *identity // nil for provider tokens

	key     *apnsKey
	jwt     string
	changed time.Time // when the JWT last changed; zero until it first does
	stuck   string    // the reason that every later request fails with
}

// Times of provider tokens.
const (
	jwtLife     = time.Hour
	jwtInterval = 20 * time.Minute
)

// proven reports whether the connection has shown who it speaks for.
func (a *session) proven(environment string) bool {
	if a.certificate != nil {
		return a.certificate.check(environment) == ""
	}
	return a.key != nil
}

// check returns a reason, or "" for a good certificate or provider token; the token
// of a connection with a certificate is not looked at. An expired one and too
// many new ones spoil the connection for good, as they do at Apple's.
func (a *session) check(keys *keyBook, environment string, r *apnsRequest) string {
	if a.stuck != "" {
		return a.stuck
	}
	if a.certificate != nil {
		r.defaultTopic(a.certificate.topic)
		return a.certificate.check(environment)
	}
	reason := a.judge(keys, environment, r.bearer, r.at)
	a.note(reason)
	return reason
}

// note remembers a reason that spoils the connection.
func (a *session) note(reason string) {
	if reason == "ExpiredProviderToken" || reason == "TooManyProviderTokenUpdates" {
		a.stuck = reason
	}
}

func (a *session) judge(keys *keyBook, environment, header string, now time.Time) string {
	token := bearerToken(header)
	if token == "" {
		return "MissingProviderToken"
	}
	proven, err := keys.verify(token)
	switch {
	case err != nil:
		return "InvalidProviderToken"
	case a.key != nil && a.key.team != proven.key.team:
		return "InvalidProviderToken"
	case a.key != nil && a.key.id != proven.key.id:
		return "UnrelatedKeyIdInToken"
	case proven.key.environment != "" && proven.key.environment != environment:
		return "BadEnvironmentKeyIdInToken"
	case now.Sub(proven.issued) > jwtLife:
		return "ExpiredProviderToken"
	case proven.issued.Sub(now) > jwtLife:
		return "InvalidProviderToken"
	}
	if a.jwt != "" && a.jwt != token {
		if !a.changed.IsZero() && now.Sub(a.changed) < jwtInterval {
			return "TooManyProviderTokenUpdates"
		}
		a.changed = now
	}
	a.key, a.jwt = proven.key, token
	return ""
}

// defaultTopic fills in the topic that a certificate's request may leave out.
func (r *apnsRequest) defaultTopic(topic string) {
	if r.header["apns-topic"] == "" {
		r.header["apns-topic"] = topic
	}
}

// bearerToken returns what follows "bearer ", in any case; empty if nothing does.
func bearerToken(header string) string {
	const scheme = "bearer "
	if len(header) < len(scheme) || !strings.EqualFold(header[:len(scheme)], scheme) {
		return ""
	}
	return strings.TrimSpace(header[len(scheme):])
}

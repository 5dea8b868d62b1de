package fcm

import (
	"fmt"
	"strings"
	"testing"

	"rouse/providers"
)

// failure writes Google's error JSON.
func failure(category, message string, details ...string) string {
	return fmt.Sprintf(`{"error":{"code":1,"message":%q,"status":%q,"details":[%s]}}`, message, category, strings.Join(details, ","))
}

func fcmCode(code string) string {
	return fmt.Sprintf(`{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":%q}`, code)
}

func violation(field string) string {
	return fmt.Sprintf(`{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":%q,"description":"x"}]}`, field)
}

func quotaOf(subjects ...string) string {
	var list []string
	for _, s := range subjects {
		list = append(list, fmt.Sprintf(`{"subject":%q,"description":"x"}`, s))
	}
	return `{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[` + strings.Join(list, ",") + `]}`
}

const (
	info = `{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"RATE_LIMIT_EXCEEDED","domain":"googleapis.com"}`
	apns = `{"@type":"type.googleapis.com/google.firebase.fcm.v1.ApnsError","statusCode":403,"reason":"InvalidProviderToken"}`
	html = `<!DOCTYPE html><title>Error</title>`
)

// TestVerdict has a row for every row of Google's table, and for what is not in it.
func TestVerdict(t *testing.T) {
	t.Parallel()
	const once, again = false, true
	for name, tt := range map[string]struct {
		status int
		body   string
		again  bool
		want   providers.Verdict
		reason string
	}{
		"accepted":             {200, `{"name":"projects/p/messages/0:1%2"}`, once, providers.Accepted, ""},
		"200 html":             {200, html, once, providers.Unavailable, "bad_answer"},
		"200 empty object":     {200, `{}`, once, providers.Unavailable, "bad_answer"},
		"200 cut short":        {200, `{"name":"proj`, once, providers.Unavailable, "bad_answer"},
		"302":                  {302, ``, once, providers.Unavailable, "http_302"},
		"unregistered":         {404, failure("NOT_FOUND", "gone", fcmCode("UNREGISTERED")), once, providers.TokenDead, "UNREGISTERED"},
		"unregistered, behind": {404, failure("NOT_FOUND", "gone", info, fcmCode("UNREGISTERED")), once, providers.TokenDead, "UNREGISTERED"},
		"404 of the project":   {404, failure("NOT_FOUND", "project not found"), once, providers.Unavailable, "NOT_FOUND"},
		"404 html":             {404, html, once, providers.Unavailable, "http_404"},
		"404 empty":            {404, ``, once, providers.Unavailable, "http_404"},
		"malformed token, message": {400, failure("INVALID_ARGUMENT", "The registration token is not a valid FCM registration token", fcmCode("INVALID_ARGUMENT")), once,
			providers.TokenSuspect, "invalid_token"},
		"malformed token, field":   {400, failure("INVALID_ARGUMENT", "x", violation("message.token"), fcmCode("INVALID_ARGUMENT")), once, providers.TokenSuspect, "invalid_token"},
		"bad data":                 {400, failure("INVALID_ARGUMENT", "x", violation("message.data"), fcmCode("INVALID_ARGUMENT")), once, providers.Rejected, "INVALID_ARGUMENT"},
		"too big, no details":      {400, failure("INVALID_ARGUMENT", "Message too big"), once, providers.Rejected, "INVALID_ARGUMENT"},
		"400 unregistered":         {400, failure("INVALID_ARGUMENT", "x", fcmCode("UNREGISTERED")), once, providers.Rejected, "UNREGISTERED"},
		"400 html":                 {400, html, once, providers.Unavailable, "http_400"},
		"other project":            {403, failure("PERMISSION_DENIED", "x", fcmCode("SENDER_ID_MISMATCH")), once, providers.TokenSuspect, "SENDER_ID_MISMATCH"},
		"service disabled":         {403, failure("PERMISSION_DENIED", "x", `{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"SERVICE_DISABLED"}`), once, providers.CredentialBad, "SERVICE_DISABLED"},
		"403 of the role":          {403, failure("PERMISSION_DENIED", "x", `{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"IAM_PERMISSION_DENIED"}`), once, providers.CredentialBad, "IAM_PERMISSION_DENIED"},
		"403 and a word of theirs": {403, failure("PERMISSION_DENIED", "x", `{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"SOMETHING_NEW"}`), once, providers.CredentialBad, "PERMISSION_DENIED"},
		"cut short":                {404, failure("NOT_FOUND", "gone", fcmCode("UNREGISTERED"))[:90], once, providers.Unavailable, "http_404"},
		"403 unknown":              {403, failure("SOMETHING_NEW", "x"), once, providers.CredentialBad, "SOMETHING_NEW"},
		"403 html":                 {403, html, once, providers.Unavailable, "http_403"},
		"third party":              {401, failure("UNAUTHENTICATED", "x", fcmCode("THIRD_PARTY_AUTH_ERROR"), apns), once, providers.CredentialBad, "THIRD_PARTY_AUTH_ERROR"},
		"third party, again":       {401, failure("UNAUTHENTICATED", "x", fcmCode("THIRD_PARTY_AUTH_ERROR"), apns), again, providers.CredentialBad, "THIRD_PARTY_AUTH_ERROR"},
		"third party, old name":    {401, failure("UNAUTHENTICATED", "x", fcmCode("APNS_AUTH_ERROR")), once, providers.CredentialBad, "APNS_AUTH_ERROR"},
		"ours":                     {401, failure("UNAUTHENTICATED", "x"), once, providers.ConnectionLost, "UNAUTHENTICATED"},
		"ours, again":              {401, failure("UNAUTHENTICATED", "x"), again, providers.CredentialBad, "UNAUTHENTICATED"},
		"401 html":                 {401, html, once, providers.ConnectionLost, "http_401"},
		"project quota":            {429, failure("RESOURCE_EXHAUSTED", "x", fcmCode("QUOTA_EXCEEDED"), quotaOf("project:p")), once, providers.AppThrottled, "QUOTA_EXCEEDED"},
		"device quota":             {429, failure("RESOURCE_EXHAUSTED", "x", fcmCode("QUOTA_EXCEEDED"), quotaOf("device:d")), once, providers.DeviceThrottled, "QUOTA_EXCEEDED"},
		"both quotas":              {429, failure("RESOURCE_EXHAUSTED", "x", fcmCode("QUOTA_EXCEEDED"), quotaOf("device:d", "project:p")), once, providers.AppThrottled, "QUOTA_EXCEEDED"},
		"quota of nobody":          {429, failure("RESOURCE_EXHAUSTED", "x", quotaOf()), once, providers.AppThrottled, "RESOURCE_EXHAUSTED"},
		"only ErrorInfo":           {429, failure("RESOURCE_EXHAUSTED", "x", info), once, providers.AppThrottled, "RESOURCE_EXHAUSTED"},
		"429 html":                 {429, html, once, providers.AppThrottled, "http_429"},
		"500":                      {500, failure("INTERNAL", "x", fcmCode("INTERNAL")), once, providers.Unavailable, "INTERNAL"},
		"502 html":                 {502, html, once, providers.Unavailable, "http_502"},
		"503":                      {503, failure("UNAVAILABLE", "x", fcmCode("UNAVAILABLE")), once, providers.Unavailable, "UNAVAILABLE"},
		"503 without code":         {503, failure("UNAVAILABLE", "x"), once, providers.Unavailable, "UNAVAILABLE"},
		"503 unregistered":         {503, failure("UNAVAILABLE", "x", fcmCode("UNREGISTERED")), once, providers.Unavailable, "UNREGISTERED"},
		"504":                      {504, failure("DEADLINE_EXCEEDED", "x"), once, providers.Unavailable, "DEADLINE_EXCEEDED"},
		"408":                      {408, failure("", "x"), once, providers.Unavailable, "http_408"},
		"409":                      {409, failure("ABORTED", "x"), once, providers.Rejected, "ABORTED"},
		"a token for a code":       {400, failure("eR5:APA91b-x", "x", fcmCode("eR5:APA91b-x")), once, providers.Rejected, "http_400"},
	} {
		v, reason := verdict(read(tt.status, []byte(tt.body)), tt.again, "ios")
		if v != tt.want || reason != tt.reason {
			t.Errorf("%s: %s %q, want %s %q", name, v, reason, tt.want, tt.reason)
		}
	}
}

// TestThirdParty: the key that the project lacks stops the devices it is for, and nobody else.
func TestThirdParty(t *testing.T) {
	t.Parallel()
	for platform, want := range map[string]providers.Verdict{
		"ios": providers.CredentialBad, "macos": providers.CredentialBad, "web": providers.CredentialBad,
		"android": providers.Unavailable, "other": providers.Unavailable, "": providers.Unavailable,
	} {
		a := read(401, []byte(failure("UNAUTHENTICATED", "x", fcmCode("THIRD_PARTY_AUTH_ERROR"), apns)))
		if v, _ := verdict(a, true, platform); v != want {
			t.Errorf("%q: %s, want %s", platform, v, want)
		}
	}
}

// FuzzRead looks for an answer that panics, or that kills a token without Google's word for it.
func FuzzRead(f *testing.F) {
	f.Add(404, []byte(failure("NOT_FOUND", "gone", fcmCode("UNREGISTERED"))))
	f.Add(429, []byte(failure("X", "y", quotaOf("device:d"))))
	f.Add(404, []byte(html))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		v, reason := verdict(read(status, body), false, "android")
		if v == providers.TokenDead && (status != 404 || !strings.Contains(string(body), "UNREGISTERED") && !strings.Contains(string(body), `\u`)) {
			t.Errorf("%d %q kills a token", status, body)
		}
		if len(reason) > 64 {
			t.Errorf("reason of %d bytes", len(reason))
		}
	})
}

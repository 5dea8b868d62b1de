package sim

import (
	"encoding/json"
	"net/http"
	"strings"
)

// fcmReasons says how Google dresses each reason. A reason that is an errorCode
// comes with an FcmError detail; the others are told by the status alone.
var fcmReasons = map[string]struct {
	status    int
	word      string
	errorCode string
}{
	"UNREGISTERED":           {404, "NOT_FOUND", "UNREGISTERED"},
	"INVALID_ARGUMENT":       {400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"},
	"SENDER_ID_MISMATCH":     {403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"},
	"THIRD_PARTY_AUTH_ERROR": {401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"},
	"QUOTA_EXCEEDED":         {429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"},
	"QUOTA_EXCEEDED_DEVICE":  {429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"},
	"QUOTA_EXCEEDED_TOPIC":   {429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"},
	"UNAVAILABLE":            {503, "UNAVAILABLE", "UNAVAILABLE"},
	"INTERNAL":               {500, "INTERNAL", "INTERNAL"},
	"UNAUTHENTICATED":        {401, "UNAUTHENTICATED", ""},
	"PERMISSION_DENIED":      {403, "PERMISSION_DENIED", ""},
	"IAM_PERMISSION_DENIED":  {403, "PERMISSION_DENIED", ""},
	"NOT_FOUND":              {404, "NOT_FOUND", ""},
	"RATE_LIMIT_EXCEEDED":    {429, "RESOURCE_EXHAUSTED", ""},
}

// statusWord is the canonical word of an HTTP status that came without a reason.
var statusWord = map[int]string{
	400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
	429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}

const (
	typeFCMError  = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
	typeAPNsError = "type.googleapis.com/google.firebase.fcm.v1.ApnsError"
	typeRequest   = "type.googleapis.com/google.rpc.BadRequest"
	typeQuota     = "type.googleapis.com/google.rpc.QuotaFailure"
	typeErrorInfo = "type.googleapis.com/google.rpc.ErrorInfo"
)

type detail map[string]any

// fcmError is the answer for a reason: a known one, an unknown one (as its own
// errorCode) or none (a bare status). A status of 0 takes the reason's.
func fcmError(reason string, status int, project, message string) answer {
	known, ok := fcmReasons[reason]
	if !ok {
		known.status, known.errorCode = http.StatusBadRequest, reason
		if reason == "" {
			known.status = http.StatusOK
		}
	}
	if status == 0 {
		status = known.status
	}
	if !ok {
		known.word = statusWord[status]
	}
	var details []detail
	if known.errorCode != "" {
		details = append(details, detail{"@type": typeFCMError, "errorCode": known.errorCode})
	}
	return fcmFailure(status, known.word, reason, message, append(details, reasonDetails(reason, project)...))
}

// reasonDetails are the further details that go with some reasons.
func reasonDetails(reason, project string) []detail {
	switch reason {
	case "QUOTA_EXCEEDED":
		return []detail{quota("project:"+project, "Messages per minute of the project")}
	case "QUOTA_EXCEEDED_DEVICE":
		return []detail{quota("device:"+project, "Messages per minute of one device")}
	case "QUOTA_EXCEEDED_TOPIC":
		return []detail{quota("topic:"+project, "Messages per minute of one topic")}
	case "RATE_LIMIT_EXCEEDED":
		return []detail{{"@type": typeErrorInfo, "reason": "RATE_LIMIT_EXCEEDED", "domain": "googleapis.com", "metadata": map[string]string{"consumer": "projects/" + project}}}
	case "PERMISSION_DENIED":
		return []detail{{"@type": typeErrorInfo, "reason": "SERVICE_DISABLED", "domain": "googleapis.com", "metadata": map[string]string{"consumer": "projects/" + project}}}
	case "IAM_PERMISSION_DENIED":
		return []detail{{"@type": typeErrorInfo, "reason": "IAM_PERMISSION_DENIED", "domain": "cloudresourcemanager.googleapis.com",
			"metadata": map[string]string{"permission": "cloudmessaging.messages.create", "resource": "projects/" + project}}}
	case "THIRD_PARTY_AUTH_ERROR":
		return []detail{{"@type": typeAPNsError, "statusCode": 403, "reason": "InvalidProviderToken"}}
	}
	return nil
}

func quota(subject, description string) detail {
	return detail{"@type": typeQuota, "violations": []map[string]string{{"subject": subject, "description": description}}}
}

// badRequest is a 400 that points at a field.
func badRequest(field, message string) answer { return badForm([]violation{{field, message}}) }

// badForm is a 400 that tells of each violation; the BadRequest comes before the
// FcmError, as it does live.
func badForm(wrong []violation) answer {
	var lines []string
	for _, v := range wrong {
		lines = append(lines, v.Description)
	}
	return fcmFailure(http.StatusBadRequest, "INVALID_ARGUMENT", "INVALID_ARGUMENT", strings.Join(lines, "\n"), []detail{
		{"@type": typeRequest, "fieldViolations": wrong},
		{"@type": typeFCMError, "errorCode": "INVALID_ARGUMENT"},
	})
}

func fcmFailure(status int, word, reason, message string, details []detail) answer {
	type problem struct {
		Code    int      `json:"code"`
		Message string   `json:"message"`
		Status  string   `json:"status,omitempty"`
		Details []detail `json:"details,omitempty"`
	}
	body, _ := json.MarshalIndent(map[string]problem{"error": {Code: status, Message: message, Status: word, Details: details}}, "", "  ")
	return answer{status: status, reason: reason, body: body}
}

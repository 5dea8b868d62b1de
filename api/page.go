package api

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// Pages are written by hand: encoding/json would re-space and re-escape data, which
// reaches its device byte for byte.

// pageJSON writes a page of the device's inbox.
func pageJSON(device ident.Device, p messages.Page) []byte {
	size := 256
	for _, item := range p.Items {
		size += 256 + len(item.Data)
	}
	out := append(make([]byte, 0, size), `{"messages":[`...)
	for i, item := range p.Items {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendItem(out, item)
	}
	out = append(out, `],"cursor":`...)
	out = appendString(out, string(messages.NewCursor(device, p.Last)))
	out = append(out, `,"more":`...)
	out = strconv.AppendBool(out, p.More)
	if p.Gap != nil {
		out = append(out, `,"gap":{"from":`...)
		out = appendString(out, string(messages.NewCursor(device, p.Gap.From)))
		out = append(out, `,"to":`...)
		out = appendString(out, string(messages.NewCursor(device, p.Gap.To)))
		out = append(out, `,"count":`...)
		out = strconv.AppendInt(out, int64(p.Gap.Count), 10)
		out = append(out, `,"reason":`...)
		out = append(appendString(out, p.Gap.Reason), '}')
	}
	return append(out, '}')
}

func appendItem(out []byte, item messages.Item) []byte {
	out = append(out, `{"id":`...)
	out = appendString(out, string(item.ID))
	out = append(out, `,"data":`...)
	out = append(out, item.Data...)
	out = append(out, `,"urgency":`...)
	out = appendString(out, item.Urgency.String())
	if item.CollapseKey != "" {
		out = append(out, `,"collapse_key":`...)
		out = appendString(out, item.CollapseKey)
	}
	out = append(out, `,"created_at":`...)
	out = appendTime(out, item.CreatedAt)
	out = append(out, `,"expires_at":`...)
	out = appendTime(out, item.ExpiresAt)
	out = append(out, `,"attempt":`...)
	out = strconv.AppendInt(out, int64(item.Attempt), 10)
	return append(out, '}')
}

func appendTime(out []byte, t time.Time) []byte {
	out = append(out, '"')
	out = stamp(t).AppendFormat(out, "2006-01-02T15:04:05.000Z07:00")
	return append(out, '"')
}

// appendString quotes what may be anybody's words; a string always marshals.
func appendString(out []byte, s string) []byte {
	quoted, _ := json.Marshal(s)
	return append(out, quoted...)
}

// oneItem is the answer to getInboxMessage.
type oneItem messages.Item

// VisitGetInboxMessageResponse writes the message.
func (item oneItem) VisitGetInboxMessageResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/json")
	_, err := w.Write(appendItem(nil, messages.Item(item)))
	return err
}

package worker

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"github.com/google/uuid"

	"rouse/messages"
	"rouse/providers"
	"rouse/tokens"
)

// stoodFor is what a push of the class answers for: an alert for everything, a background push for its own class.
func stoodFor(c messages.Class, head messages.Marks) messages.Marks {
	if c == messages.HighWake {
		return messages.Marks{High: head.Max(), Normal: head.Max()}
	}
	return messages.Marks{Normal: head.Normal}
}

// pushFor builds the push. Nothing of a message goes in but a notification its owner asked to show.
func pushFor(c messages.Class, w messages.Waiting, d tokens.Device) providers.Push {
	head := w.Head.Max()
	p := providers.Push{
		ID:         pushID(w).String(),
		Device:     d.ID,
		Token:      string(d.Token),
		Platform:   string(d.Platform),
		Locale:     d.Locale,
		Kind:       providers.Background,
		Head:       string(messages.NewCursor(d.ID, head)),
		CollapseID: collapseID(w),
		ExpiresAt:  w.ExpiresAt,
	}
	if c == messages.HighWake {
		p.Kind = providers.Alert
		p.Repeat = w.Head.High <= w.Woken.High
		if w.Notification != nil {
			p.Notification = &providers.Text{Title: w.Notification.Title, Body: w.Notification.Body}
		}
	}
	return p
}

// collapseID is the same for every wake that calls for the same oldest message, so that a
// repeated alert takes its predecessor's place on the screen and leaves others alone.
func collapseID(w messages.Waiting) string {
	sum := fingerprint(w, w.Oldest)
	return "rouse-" + base64.RawURLEncoding.EncodeToString(sum[:9])
}

// pushID is the same for every attempt at the same wake.
func pushID(w messages.Waiting) uuid.UUID {
	sum := fingerprint(w, w.Oldest, w.Head.High, w.Head.Normal, messages.Seq(w.Unanswered), messages.Seq(w.WokenAt.UnixMilli()))
	return uuid.NewSHA1(uuid.NameSpaceOID, sum[:])
}

func fingerprint(w messages.Waiting, places ...messages.Seq) [sha256.Size]byte {
	b := []byte(w.Device)
	for _, p := range places {
		b = binary.BigEndian.AppendUint64(b, uint64(p))
	}
	return sha256.Sum256(b)
}

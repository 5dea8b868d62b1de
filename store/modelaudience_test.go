package store

import (
	"context"

	"pgregory.net/rapid"

	"rouse/messages"
)

// bind makes an inbox a user's. Whoever had it before leaves nothing there.
func (m *model) bind(t *rapid.T) {
	b := rapid.SampledFrom(m.boxes).Draw(t, "of")
	user := rapid.SampledFrom(modelUsers).Draw(t, "user")
	m.do(t, m.s.BindUser(context.Background(), m.app, user, b.id, m.now))
	m.leaves(b, user)
}

func (m *model) logout(t *rapid.T) {
	b := rapid.SampledFrom(m.boxes).Draw(t, "of")
	m.do(t, m.s.UnbindUser(context.Background(), m.app, "", b.id, m.now))
	m.leaves(b, "")
}

// leaves has the user before leave an inbox to another, or to nobody.
func (m *model) leaves(b *modelInbox, to string) {
	if b.user == to {
		return
	}
	for _, e := range b.live() {
		if b.user != "" && e.user == b.user {
			e.state = messages.Canceled
		}
	}
	b.user = to
}

package store

import (
	"strings"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// Which events an app wants is asked for all apps together, every few seconds, and on the way of something else: no event costs a
// question.

const (
	// typesLast is how old the answer gets: the first batch after that asks anew.
	typesLast = 4 * time.Second

	selectEventTypes = "SELECT id, event_types FROM apps WHERE event_types IS NOT NULL"
)

// eventTypes is what apps want that do not want all. It is never changed.
type eventTypes struct {
	asked time.Time
	of    map[ident.App]messages.EventFilter
}

// wanted reports whether events of the type are stored.
func (s *Store) wanted(app ident.App, kind messages.EventType) bool {
	types := s.types.Load()
	if types == nil {
		return true
	}
	filter, some := types.of[app]
	return !some || filter.Takes(kind)
}

// askEventTypes sees to it that what is known of the apps' wishes is young enough. Where statements travel the question is the first
// of its batch: whatever tells of something has read something by then, and the answer came with that or before.
func (t *tx) askEventTypes() error {
	s, now := t.w.store, time.Now()
	known := s.types.Load()
	if known != nil && now.Sub(known.asked) < typesLast {
		return nil
	}
	fresh := &eventTypes{asked: now, of: map[ident.App]messages.EventFilter{}}
	read := func(r row) error {
		var app ident.App
		var words string
		err := r.Scan(&app, &words)
		fresh.of[app] = strings.Fields(words)
		return err
	}
	if !t.w.travels() {
		err := t.ask(read, selectEventTypes)
		if err == nil {
			s.types.Store(fresh)
		}
		return err
	}
	t.w.send(errand{query: selectEventTypes, read: read, done: func(string) error {
		s.types.Store(fresh)
		return nil
	}})
	return nil
}

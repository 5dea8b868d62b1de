package store

import (
	"context"

	"rouse/ident"
	"rouse/messages"
)

// The body of a message to several devices lies apart, once. It is found by the message's id, after the page: in a distributed
// database it is on another machine than the device.

const (
	selectBody = "SELECT id, body FROM messages WHERE body IS NOT NULL AND id = ?"
	// selectBodies is for an engine that knows arrays.
	selectBodies = "SELECT id, body FROM messages WHERE body IS NOT NULL AND id " + anyOf
	// bodyTries bounds how often a page is read again because a body went.
	bodyTries = 3
)

// fillBodies puts the bodies of those items that share theirs. whole is false if one is missing: its last delivery ended after the page was
// read, so a page that is read now is without it.
func (s *Store) fillBodies(ctx context.Context, items []messages.Item, shared []int) (whole bool, err error) {
	ids := make([]string, 0, len(shared))
	for _, i := range shared {
		ids = append(ids, string(items[i].ID))
	}
	bodies, err := s.bodies(ctx, ids)
	if err != nil {
		return false, err
	}
	whole = true
	for _, i := range shared {
		items[i].Data = bodies[items[i].ID]
		whole = whole && items[i].Data != nil
	}
	return whole, nil
}

// bodies returns those that are there.
func (s *Store) bodies(ctx context.Context, ids []string) (map[ident.Message][]byte, error) {
	query, asked := selectBody, anys(ids)
	if s.dialect.shared {
		query, asked = selectBodies, []any{ids}
	}
	found := map[ident.Message][]byte{}
	for _, which := range asked {
		var rows []struct {
			ID   ident.Message `db:"id"`
			Body []byte        `db:"body"`
		}
		if err := s.reads.list(ctx, &rows, query, which); err != nil {
			return nil, err
		}
		for _, r := range rows {
			found[r.ID] = r.Body
		}
	}
	return found, nil
}

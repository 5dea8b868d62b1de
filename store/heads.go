package store

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// Which of many polls would be answered now, in one statement. The engines differ in how they take a list: as arrays, or as
// JSON, whose bytes are hexadecimal. q is the list. The cheap questions come first; the last one is an index's, for each poll.
const (
	freshFrom = ` LEFT JOIN devices d ON d.id = q.device LEFT JOIN inboxes i ON i.device = q.device LEFT JOIN gaps g ON g.device = q.device
		WHERE d.id IS NULL OR i.device IS NULL OR d.unregistered_at IS NOT NULL OR i.gone_at IS NOT NULL OR i.head > i.seen OR g.told < g.lost `
	freshUnread = ` OR EXISTS (SELECT 1 FROM deliveries p WHERE p.device = q.device AND p.ended_at IS NULL AND p.seq > q.place AND p.expires_at > `

	freshOfArrays = `SELECT q.device FROM unnest(CAST(?1 AS TEXT[]), CAST(?2 AS BIGINT[]), CAST(?3 AS BYTEA[])) AS q (device, place, proof)` + freshFrom + `
		OR d.secret <> q.proof AND (d.secret_previous IS NULL OR d.secret_previous <> q.proof)` + freshUnread + `?4)`
	freshOfJSON = `SELECT q.device FROM (SELECT j.value ->> 0 AS device, j.value ->> 1 AS place, j.value ->> 2 AS proof FROM json_each(?1) j) q` + freshFrom + `
		OR hex(d.secret) <> q.proof AND (d.secret_previous IS NULL OR hex(d.secret_previous) <> q.proof)` + freshUnread + `?2)`
)

// Fresh returns the devices of those polls that should look now: something waits beyond their place, a gap is to be told, a wake
// is to be answered, the device or its key is gone. It may name one more than that, and none less. All polls are one
// statement: ask about some thousand at most.
func (s *Store) Fresh(ctx context.Context, polls []messages.Poll, now time.Time) ([]ident.Device, error) {
	if len(polls) == 0 {
		return nil, nil
	}
	query, args, err := freshQuery(s.dialect.shared, polls, now)
	if err != nil {
		return nil, fmt.Errorf("list polls: %w", err)
	}
	var found []ident.Device
	if err := s.reads.list(ctx, &found, query, args...); err != nil {
		return nil, s.readError("ask what polls would be answered", err)
	}
	return found, nil
}

func freshQuery(arrays bool, polls []messages.Poll, now time.Time) (query string, args []any, err error) {
	if arrays {
		devices, places, proofs := make([]string, len(polls)), make([]int64, len(polls)), make([][]byte, len(polls))
		for i, p := range polls {
			devices[i], places[i], proofs[i] = string(p.Device), int64(p.After), polls[i].Proof[:]
		}
		return freshOfArrays, []any{devices, places, proofs, millis(now)}, nil
	}
	list := make([][3]any, len(polls))
	for i, p := range polls {
		list[i] = [3]any{p.Device, p.After, strings.ToUpper(hex.EncodeToString(p.Proof[:]))}
	}
	text, err := json.Marshal(list)
	return freshOfJSON, []any{string(text), millis(now)}, err
}

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

// Which of many polls would not be answered now, in one statement. The engines differ in how they take a list: as arrays, or as
// JSON, whose bytes are hexadecimal. q is the list. The cheap questions come first; the last one is an index's, for each poll. It is
// asked who may stay quiet, and not who should look: a device that is gone has no row to say so, and a distributed
// database has no outer join of a list with its tables.
const (
	quietFrom = ` JOIN inboxes i ON i.device = d.id LEFT JOIN gaps g ON g.device = d.id
		WHERE d.unregistered_at IS NULL AND i.gone_at IS NULL AND i.head <= i.seen AND (g.device IS NULL OR g.told >= g.lost) AND `
	quietRead = ` AND NOT EXISTS (SELECT 1 FROM deliveries p WHERE p.device = d.id AND p.ended_at IS NULL AND p.seq > q.place AND p.expires_at > `

	quietOfArrays = `SELECT q.n - 1 FROM unnest(CAST(?1 AS TEXT[]), CAST(?2 AS BIGINT[]), CAST(?3 AS BYTEA[])) WITH ORDINALITY AS q (device, place, proof, n)
		JOIN devices d ON d.id = q.device AND d.id = ANY (CAST(?1 AS TEXT[]))` + quietFrom + `(d.secret = q.proof OR d.secret_previous = q.proof)` + quietRead + `?4)`
	quietOfJSON = `SELECT q.n FROM (SELECT j.key AS n, j.value ->> 0 AS device, j.value ->> 1 AS place, j.value ->> 2 AS proof FROM json_each(?1) j) q
		CROSS JOIN devices d ON d.id = q.device` + quietFrom + `(hex(d.secret) = q.proof OR hex(d.secret_previous) = q.proof)` + quietRead + `?2)`
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
	var quiet []int
	if err := s.reads.list(ctx, &quiet, query, args...); err != nil {
		return nil, s.readError("ask what polls would be answered", err)
	}
	isQuiet := make([]bool, len(polls))
	for _, i := range quiet {
		isQuiet[i] = true
	}
	var found []ident.Device
	for i, p := range polls {
		if !isQuiet[i] {
			found = append(found, p.Device)
		}
	}
	return found, nil
}

func freshQuery(arrays bool, polls []messages.Poll, now time.Time) (query string, args []any, err error) {
	if arrays {
		devices, places, proofs := make([]string, len(polls)), make([]int64, len(polls)), make([][]byte, len(polls))
		for i, p := range polls {
			devices[i], places[i], proofs[i] = string(p.Device), int64(p.After), polls[i].Proof[:]
		}
		return quietOfArrays, []any{devices, places, proofs, millis(now)}, nil
	}
	list := make([][3]any, len(polls))
	for i, p := range polls {
		list[i] = [3]any{p.Device, p.After, strings.ToUpper(hex.EncodeToString(p.Proof[:]))}
	}
	text, err := json.Marshal(list)
	return quietOfJSON, []any{string(text), millis(now)}, err
}

package store

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
)

// What is kept for an Idempotency-Key.

// idempotencyLife is how long a key is remembered.
const idempotencyLife = 24 * time.Hour

type replayKey struct {
	app ident.App
	key string
}

func (k replayKey) compare(o replayKey) int {
	return cmp.Or(strings.Compare(string(k.app), string(o.app)), strings.Compare(k.key, o.key))
}

// remembered is an answer kept for an Idempotency-Key.
type remembered struct {
	at      replayKey
	request []byte
	receipt storedReceipt
	created int64
}

// storedReceipt is how a receipt is kept. Times are unix milliseconds.
type storedReceipt struct {
	ID         ident.Message   `json:"id"`
	Status     messages.Status `json:"status"`
	Recipients int             `json:"recipients"`
	CreatedAt  int64           `json:"created_at"`
	ExpiresAt  int64           `json:"expires_at"`
	SendAt     *int64          `json:"send_at,omitempty"`
}

// replay returns the answer an earlier send with m's key got; nil if there was none in the last day. A key that was used
// for something else is Invalid "idempotency_key_reused".
func (p *plan) replay(m *messages.Send) (*remembered, error) {
	if m.Idempotency.Key == "" {
		return nil, nil
	}
	at := replayKey{m.App, m.Idempotency.Key}
	r, read := p.known[at]
	if !read {
		var err error
		if r, err = p.recall(at); err != nil {
			return nil, err
		}
		p.known[at] = r
	}
	if r == nil || millis(m.CreatedAt)-r.created >= idempotencyLife.Milliseconds() {
		return nil, nil
	}
	if string(r.request) != string(m.Idempotency.Request[:]) {
		return nil, fault.New(fault.Invalid, "idempotency_key_reused",
			"this Idempotency-Key was used with another request in the last 24 hours; take a fresh one")
	}
	return r, nil
}

func (p *plan) recall(at replayKey) (*remembered, error) {
	var rows []struct {
		Request []byte `db:"request"`
		Receipt string `db:"receipt"`
		Created int64  `db:"created_at"`
	}
	const query = "SELECT request, receipt, created_at FROM idempotency WHERE app = ? AND key = ?"
	if err := p.t.list(&rows, query, string(at.app), at.key); err != nil {
		return nil, fmt.Errorf("look an idempotency key up: %w", err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	r := &remembered{at: at, request: rows[0].Request, created: rows[0].Created}
	if err := json.Unmarshal([]byte(rows[0].Receipt), &r.receipt); err != nil {
		return nil, fmt.Errorf("read a stored receipt: %w", err)
	}
	return r, nil
}

func replayed(r *remembered) messages.Receipt {
	if r == nil {
		return messages.Receipt{}
	}
	return messages.Receipt{ID: r.receipt.ID, Status: r.receipt.Status, Recipients: r.receipt.Recipients,
		CreatedAt: fromMillis(r.receipt.CreatedAt), ExpiresAt: fromMillis(r.receipt.ExpiresAt), SendAt: fromNull(r.receipt.SendAt), Replayed: true}
}

// remember keeps the answer for m's key.
func (p *plan) remember(m *messages.Send, receipt messages.Receipt) {
	if m.Idempotency.Key == "" {
		return
	}
	r := &remembered{at: replayKey{m.App, m.Idempotency.Key}, request: m.Idempotency.Request[:], created: millis(m.CreatedAt),
		receipt: storedReceipt{ID: receipt.ID, Status: receipt.Status, Recipients: receipt.Recipients,
			CreatedAt: millis(receipt.CreatedAt), ExpiresAt: millis(receipt.ExpiresAt), SendAt: millisOrNull(receipt.SendAt)}}
	p.known[r.at] = r
	p.replays = append(p.replays, r)
}

// takenError says that another node has used an Idempotency-Key since it was looked up: done again, the send finds its answer.
type takenError struct{ at replayKey }

func (takenError) Error() string { return "another node has just used this Idempotency-Key" }

func (p *plan) insertReplays() error {
	const query = `INSERT INTO idempotency (app, key, request, receipt, created_at) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (app, key) DO UPDATE SET request = excluded.request, receipt = excluded.receipt, created_at = excluded.created_at
		WHERE excluded.created_at - idempotency.created_at >= ?`
	for _, r := range p.replays {
		receipt, err := json.Marshal(r.receipt)
		if err != nil {
			return fmt.Errorf("store a receipt: %w", err)
		}
		n, err := p.t.exec(query, string(r.at.app), r.at.key, r.request, string(receipt), r.created, idempotencyLife.Milliseconds())
		if err != nil {
			return fmt.Errorf("store an idempotency key: %w", err)
		}
		if n == 0 {
			return takenError{r.at}
		}
	}
	return nil
}

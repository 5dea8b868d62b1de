package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// tokenPlace binds a sealed token to its row.
func tokenPlace(id ident.Device) string { return "token:" + string(id) }

// hashOfToken is what makes two registrations of one token meet, without opening either.
func hashOfToken(d tokens.Device) []byte {
	h := sha256.New()
	for _, part := range []string{string(d.App), string(d.Provider), string(d.Environment), string(d.Token)} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	return h.Sum(nil)
}

// holdToken makes d the holder of d.Token, as registered now; whoever held it is superseded. before is the device as the caller read it,
// zero for a new one. The caller stores d.
func (t *tx) holdToken(before tokens.Device, d *tokens.Device, now time.Time) error {
	d.Generation++
	d.RegisteredAt = fromMillis(millis(now))
	d.TokenReason = ""
	d.Strikes, d.StruckAt, d.OtherTried = 0, time.Time{}, false
	if d.Token == "" {
		d.TokenState = tokens.TokenNone
		return nil
	}
	d.TokenState = tokens.TokenActive
	hash := hashOfToken(*d)
	if err := t.claim(hash); err != nil {
		return fmt.Errorf("take a token over: %w", err)
	}
	if before.Token == d.Token && before.Provider == d.Provider && before.Environment == d.Environment {
		held, err := t.stillHolds(d.ID, hash)
		if err != nil || held {
			return err // nobody else has it
		}
	}
	if _, err := t.exec(supersede, string(tokens.TokenSuperseded), hash, string(d.ID)); err != nil {
		return fmt.Errorf("take a token over: %w", err)
	}
	return nil
}

// stillHolds reports whether a device that was seen holding a claimed token holds it: before the claim, another node may have given
// it to another device. Asking this one spares asking all, which is what a phone that shows its token at every start would cost.
func (t *tx) stillHolds(id ident.Device, hash []byte) (bool, error) {
	if !t.w.store.dialect.shared {
		return true, nil
	}
	var n int
	if err := t.get(&n, "SELECT COUNT(*) FROM devices WHERE id = ? AND token_hash = ?", string(id), hash); err != nil {
		return false, fmt.Errorf("ask who holds a token: %w", err)
	}
	return n == 1, nil
}

const (
	supersede = `UPDATE devices SET token_state = ?, token_reason = '', token = NULL, token_hash = NULL, strikes = 0, struck_at = NULL,
		other_tried = 0 WHERE token_hash = ? AND id <> ?`
	selectHolder  = "SELECT id, registered_at FROM devices WHERE token_hash = ? AND id <> ?"
	updateVerdict = "UPDATE devices SET token_state = ?, token_reason = ?, strikes = ?, struck_at = ?, other_tried = ? WHERE id = ?"
)

// forgive takes back what refusals made of a token. A death is not taken back.
func forgive(d *tokens.Device) {
	d.Strikes, d.StruckAt, d.OtherTried = 0, time.Time{}, false
	if d.TokenState == tokens.TokenSuspect {
		d.TokenState, d.TokenReason = tokens.TokenActive, ""
	}
}

// readMarks gives d what deviceColumns say of a token that was refused, and of pushes that came demoted.
func readMarks(d *tokens.Device, marks string) error {
	var other int
	var struck, demoted, credential int64
	if _, err := fmt.Sscan(marks, &d.Strikes, &struck, &other, &d.Demotions, &demoted, &credential); err != nil {
		return fmt.Errorf("read what refusals made of %s: %w", d.ID, err)
	}
	if demoted != 0 {
		d.DemotedAt = fromMillis(demoted)
	}
	if struck == 0 {
		return nil
	}
	d.StruckAt, d.OtherTried = fromMillis(struck), other != 0
	if struck < credential {
		forgive(d) // the refusals were of another credential's pushes
	}
	return nil
}

// sealed returns the two columns of a token.
func (t *tx) sealed(d tokens.Device) (token, hash []byte) {
	if d.Token == "" {
		return nil, nil
	}
	return t.w.store.ring.Seal(tokenPlace(d.ID), []byte(d.Token)), hashOfToken(d)
}

// MarkToken notes what a provider's verdict made of a token, if it is still of that generation; changed says whether
// anything did. A device that is gone is no error.
func (s *Store) MarkToken(ctx context.Context, m tokens.TokenMark) (changed bool, err error) {
	err = s.write(ctx, "mark a token", newOp(func(t *tx) (err error) {
		changed, err = t.markToken(m)
		return err
	}).locking(m.Device))
	return changed && err == nil, err
}

func (t *tx) markToken(m tokens.TokenMark) (changed bool, err error) {
	d, ok, err := t.deviceOfGeneration(m.Device, m.Generation)
	if err != nil || !ok {
		return false, err
	}
	before := d
	switch {
	case d.TokenState == tokens.TokenDead && m.State != tokens.TokenSuspect:
		return false, nil // only doubt takes a death back
	case d.TokenState == tokens.TokenActive, d.TokenState == tokens.TokenSuspect, d.TokenState == tokens.TokenDead:
		mark(&d, m)
	default:
		return false, nil // there is no token
	}
	if d == before {
		return false, nil
	}
	if err := t.storeVerdict(d); err != nil || d.TokenState != tokens.TokenDead {
		return true, err
	}
	return true, t.tellDevice(messages.DeviceTokenDead, d, d.TokenReason, m.At)
}

// mark makes of d's token what m says.
func mark(d *tokens.Device, m tokens.TokenMark) {
	if m.State == tokens.TokenActive {
		forgive(d)
		return
	}
	if m.Strike {
		d.Strikes++
	}
	if m.Strike || m.State == tokens.TokenDead || m.State == tokens.TokenSuspect && d.StruckAt.IsZero() {
		d.StruckAt = fromMillis(millis(m.At))
	}
	d.TokenState, d.TokenReason, d.OtherTried = m.State, m.Reason, d.OtherTried || m.OtherTried
}

func (t *tx) storeVerdict(d tokens.Device) error {
	_, err := t.exec(updateVerdict, string(d.TokenState), d.TokenReason, d.Strikes, millisOrNull(d.StruckAt), d.OtherTried, string(d.ID))
	if err != nil {
		return fmt.Errorf("store a verdict on a token: %w", err)
	}
	return nil
}

// deathsAtATime bounds the deaths that one commit takes back.
const deathsAtATime = 256

const selectDeaths = `SELECT id FROM devices WHERE app = ? AND provider = ? AND token_state = 'dead' AND struck_at >= ?
	ORDER BY struck_at LIMIT 0 + ?`

// TakeBackDeaths makes suspects of the app's tokens of a provider that were given up since a time, and returns whose they are, in
// the order in which they died. It commits them in pages; beside an error it returns those that are committed.
func (s *Store) TakeBackDeaths(ctx context.Context, app ident.App, p tokens.Provider, since time.Time) (back []ident.Device, err error) {
	for more := true; more; {
		var page []ident.Device
		found := 0
		err := s.write(ctx, "take deaths back", newOp(func(t *tx) error {
			page = nil
			var dead []ident.Device
			if err := t.list(&dead, selectDeaths, string(app), string(p), millis(since), deathsAtATime); err != nil {
				return fmt.Errorf("list deaths: %w", err)
			}
			found = len(dead)
			for _, d := range dead {
				// Another node may have registered it since it was read: only what is still dead is touched.
				n, err := t.exec("UPDATE devices SET token_state = ? WHERE id = ? AND token_state = 'dead'", string(tokens.TokenSuspect), string(d))
				if err != nil {
					return fmt.Errorf("take a death back: %w", err)
				}
				if n == 1 {
					page = append(page, d)
				}
			}
			return nil
		}))
		if err != nil {
			return back, err
		}
		back, more = append(back, page...), found == deathsAtATime
	}
	return back, nil
}

// deviceOfGeneration reads a registered device whose token is still of that generation; ok is false for any other.
func (t *tx) deviceOfGeneration(id ident.Device, generation int64) (d tokens.Device, ok bool, err error) {
	d, err = t.needDevice(id)
	switch fault.KindOf(err) {
	case fault.NotFound, fault.Gone:
		return d, false, nil
	}
	return d, err == nil && d.Generation == generation, err
}

// MoveToken notes that a token of that generation turned out to belong to another environment, where the provider has just
// taken it: it is active there, as a generation of its own, registered when it was. If another device has registered the same
// token there later, that one holds it, active, and this device is superseded. changed says whether anything did.
func (s *Store) MoveToken(ctx context.Context, id ident.Device, generation int64, to tokens.Environment) (changed bool, err error) {
	err = s.write(ctx, "move a token", newOp(func(t *tx) (err error) {
		changed, err = t.moveToken(id, generation, to)
		return err
	}).locking(id).weighing(claimBytes))
	return changed && err == nil, err
}

func (t *tx) moveToken(id ident.Device, generation int64, to tokens.Environment) (changed bool, err error) {
	d, ok, err := t.deviceOfGeneration(id, generation)
	if err != nil || !ok || d.Token == "" || d.Environment == to {
		return false, err
	}
	before := d
	d.Environment = to
	rival, err := t.laterHolder(d)
	if err != nil {
		return false, err
	}
	if rival == "" {
		err = t.holdToken(before, &d, d.RegisteredAt)
	} else {
		d.Token, d.TokenState, d.TokenReason = "", tokens.TokenSuperseded, ""
		d.Strikes, d.StruckAt, d.OtherTried = 0, time.Time{}, false
		_, err = t.exec(updateVerdict, string(tokens.TokenActive), "", 0, nil, false, string(rival))
	}
	if err != nil {
		return false, fmt.Errorf("move a token: %w", err)
	}
	return true, t.updateDevice(d)
}

// laterHolder returns who holds d's token and registered it after d, of two at the same time the newer device; "" for nobody.
func (t *tx) laterHolder(d tokens.Device) (ident.Device, error) {
	hash := hashOfToken(d)
	if err := t.claim(hash); err != nil {
		return "", fmt.Errorf("look for a token's holder: %w", err)
	}
	var id ident.Device
	var registered int64
	err := t.scan([]any{&id, &registered}, selectHolder, hash, string(d.ID))
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look for a token's holder: %w", err)
	}
	if mine := millis(d.RegisteredAt); registered < mine || registered == mine && id < d.ID {
		return "", nil
	}
	return id, nil
}

package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// An app's devices as its backend sees them. A page costs no more than so many devices looked at, however few of them fit: it may be
// empty, and say where to go on.

const (
	// fleetLook is how many devices one page looks at.
	fleetLook = 2000

	// standing is what a device's standing follows from, without its inbox's key. A device's last wake says why it is suspect.
	standing = "SELECT " + deviceColumns + `, i.pending, c.app IS NOT NULL, COALESCE(w.at, 0), COALESCE(w.accepted, 1), COALESCE(w.verdict, ''), COALESCE(w.reason, '')` +
		fromDevices + `LEFT JOIN credentials c ON c.app = d.app AND c.provider = d.provider
		LEFT JOIN wakes w ON w.id = i.last_wake AND w.device = d.id WHERE d.app = ? AND d.unregistered_at IS NULL AND d.id `

	fleetOfApp   = "SELECT id FROM devices WHERE app = ? AND id > ? ORDER BY id LIMIT 0 + ?"
	fleetOfUser  = "SELECT id FROM devices WHERE app = ? AND user_id = ? AND user_id <> '' AND id > ? ORDER BY id LIMIT 0 + ?"
	fleetOfTopic = "SELECT DISTINCT device FROM subscriptions WHERE app = ? AND topic = ? AND device > ? ORDER BY device LIMIT 0 + ?"
)

var (
	standingsOf   = ofDevices(standing, "")
	subscribersOf = ofDevices("SELECT DISTINCT device FROM subscriptions WHERE topic = ? AND device ", "")
)

// standingRow is a device with what its standing follows from.
type standingRow struct {
	deviceRow
	pending    int
	credential bool
	last       wakeRow
}

func (r *standingRow) fields() []any {
	return append(r.deviceRow.fields(), &r.pending, &r.credential, &r.last.At, &r.last.Accepted, &r.last.Verdict, &r.last.Reason)
}

// Devices returns a page of an app's registered devices, without their tokens, in the order of their ids. It looks at up to 2,000 of them:
// a page may hold fewer than q.Limit, even none, and have more. Next is then where to go on.
func (s *Store) Devices(ctx context.Context, q tokens.DeviceQuery) (tokens.DeviceList, error) {
	look, err := s.candidates(ctx, q)
	if err != nil {
		return tokens.DeviceList{}, s.readError("list devices", err)
	}
	circuits, err := s.appCircuits(ctx, q.App)
	if err != nil {
		return tokens.DeviceList{}, err
	}
	list := tokens.DeviceList{Next: q.After, More: len(look) == fleetLook}
	for piece := range slices.Chunk(look, boxesAtATime) {
		found, err := s.standings(ctx, q.App, piece, circuits)
		if err != nil {
			return tokens.DeviceList{}, err
		}
		for _, id := range piece {
			if len(list.Devices) == q.Limit {
				list.More = true
				return list, nil
			}
			if d, known := found[id]; known && fitsQuery(d.Device, q) {
				list.Devices = append(list.Devices, d)
			}
			list.Next = id
		}
	}
	return list, nil
}

// fitsQuery reports whether a device is one that q asks for, its user and its topics aside. What a token's state is, is known only now: a
// refusal does not count if the app has put its credential since.
func fitsQuery(d tokens.Device, q tokens.DeviceQuery) bool {
	return (q.Platform == "" || d.Platform == q.Platform) && (q.Provider == "" || d.Provider == q.Provider) &&
		(q.TokenState == "" || d.TokenState == q.TokenState) && (q.User == "" || d.User == q.User)
}

// candidates are the next devices to look at, by the narrowest index there is.
func (s *Store) candidates(ctx context.Context, q tokens.DeviceQuery) (list []ident.Device, err error) {
	switch {
	case q.User != "":
		err = s.reads.list(ctx, &list, fleetOfUser, string(q.App), q.User, string(q.After), fleetLook)
	case q.Topic != "":
		err = s.reads.list(ctx, &list, fleetOfTopic, string(q.App), q.Topic, string(q.After), fleetLook)
	default:
		err = s.reads.list(ctx, &list, fleetOfApp, string(q.App), string(q.After), fleetLook)
	}
	if err != nil || q.User == "" || q.Topic == "" {
		return list, err
	}
	var both []ident.Device
	err = s.eachPiece(subscribersOf, list, func(query string, args ...any) error {
		var found []ident.Device
		err := s.reads.list(ctx, &found, query, args...)
		both = append(both, found...)
		return err
	}, q.Topic)
	slices.Sort(both)
	return both, err
}

// Standing returns one registered device of the app as its backend sees it, without its token; NotFound "device_not_found".
func (s *Store) Standing(ctx context.Context, app ident.App, id ident.Device) (tokens.Standing, error) {
	circuits, err := s.appCircuits(ctx, app)
	if err != nil {
		return tokens.Standing{}, err
	}
	found, err := s.standings(ctx, app, []ident.Device{id}, circuits)
	if err != nil {
		return tokens.Standing{}, err
	}
	d, known := found[id]
	if !known {
		return tokens.Standing{}, deviceNotFound()
	}
	return d, nil
}

func (s *Store) appCircuits(ctx context.Context, app ident.App) (list []circuitRow, err error) {
	if err := s.reads.list(ctx, &list, appsCircuits, string(app)); err != nil {
		return nil, s.readError("read what pauses pushes", err)
	}
	return list, nil
}

// standings reads those of the devices that are the app's and registered. What the lane holds of one is looked at before: what has become
// durable meanwhile is then in both, which does no harm.
func (s *Store) standings(ctx context.Context, app ident.App, devices []ident.Device, circuits []circuitRow) (map[ident.Device]tokens.Standing, error) {
	held := make(map[ident.Device]laneEntry, len(devices))
	for _, d := range devices {
		held[d], _ = s.laneOf(d).view(d)
	}
	found := make(map[ident.Device]tokens.Standing, len(devices))
	err := s.eachPiece(standingsOf, devices, func(query string, args ...any) error {
		rows, err := s.reads.rows(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r standingRow
			if err := rows.Scan(r.fields()...); err != nil {
				return fmt.Errorf("read a device: %w", err)
			}
			if found[r.ID], err = s.standing(r, held[r.ID], circuits); err != nil {
				return err
			}
		}
		return rows.Err()
	}, string(app))
	if err != nil {
		return nil, s.readError("read devices", err)
	}
	return found, nil
}

func (s *Store) standing(r standingRow, e laneEntry, circuits []circuitRow) (tokens.Standing, error) {
	r.Token = nil // nobody shows it, and one that does not open must not hide the device
	d, err := s.device(r.deviceRow)
	if err != nil {
		return tokens.Standing{}, err
	}
	d.LastContact = later(d.LastContact, fromMillis(e.contact))
	why, unreachable := messages.WhyUnreachable(messages.Sleeper{
		Provider: string(d.Provider), TokenState: string(d.TokenState), TokenReason: d.TokenReason, Quarantined: d.Quarantined(),
		HasCredential: r.credential, Pause: pauseAmong(circuits, d), Failed: lastFailure(messages.Delivery{}, r.last, e),
		RegisteredAt: d.RegisteredAt, LastContact: d.LastContact, Now: time.Now(),
	})
	return tokens.Standing{Device: d, Pending: r.pending, Reachable: !unreachable, Code: why.Code, Detail: why.Detail}, nil
}

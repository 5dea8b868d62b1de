package store

import (
	"math/bits"
	"slices"

	"rouse/ident"
)

// Statements about many devices. SQLite has no arrays: there a statement has one of a few fixed numbers of parameters, so that each is
// prepared once.

const (
	// boxesAtATime is how many devices a statement without arrays is about at most, devicesInOneTrip one with an array.
	boxesAtATime     = 64
	devicesInOneTrip = 4096

	anyOf = "= ANY (CAST(? AS TEXT[]))"
)

// devicesQuery is a statement for 1, 2, 4 and so on up to boxesAtATime devices, and one with an array of them.
type devicesQuery struct {
	sizes  [7]string // the last is for boxesAtATime
	arrays string
}

// ofDevices makes statements of which the devices are the last parameters.
func ofDevices(before, after string) (q devicesQuery) {
	for i := range q.sizes {
		q.sizes[i] = before + "IN (" + repeat("?", 1<<i) + ")" + after
	}
	q.arrays = before + anyOf + after
	return q
}

// eachPiece calls do with the statement and its parameters for as many devices as one statement takes, until all had their turn.
func (t *tx) eachPiece(q devicesQuery, devices []ident.Device, do func(query string, args ...any) error, first ...any) error {
	for piece := range slices.Chunk(devices, t.atATime()) {
		query, args := t.forDevices(q, piece)
		if err := do(query, append(slices.Clip(first), args...)...); err != nil {
			return err
		}
	}
	return nil
}

// eachPiece is tx.eachPiece for reads.
func (s *Store) eachPiece(q devicesQuery, devices []ident.Device, do func(query string, args ...any) error, first ...any) error {
	for piece := range slices.Chunk(devices, boxesAtATime) {
		query, args := q.arrays, []any{names(piece)}
		if !s.dialect.shared {
			query, args = forDevices(q.sizes, piece)
		}
		if err := do(query, append(slices.Clip(first), args...)...); err != nil {
			return err
		}
	}
	return nil
}

// forDevices picks the query for up to boxesAtATime devices and fills its parameters: the last device fills the rest.
func forDevices(queries [7]string, devices []ident.Device) (query string, args []any) {
	power := bits.Len(uint(len(devices) - 1))
	args = make([]any, 1<<power)
	for i := range args {
		args[i] = string(devices[min(i, len(devices)-1)])
	}
	return queries[power], args
}

// forDevices picks the query: with an array of any length, where the engine knows arrays.
func (t *tx) forDevices(q devicesQuery, devices []ident.Device) (query string, args []any) {
	if !t.w.store.dialect.shared {
		return forDevices(q.sizes, devices)
	}
	return q.arrays, []any{names(devices)}
}

// atATime is how many devices one query takes.
func (t *tx) atATime() int {
	if t.w.store.dialect.shared {
		return devicesInOneTrip
	}
	return boxesAtATime
}

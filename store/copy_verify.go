package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"

	"golang.org/x/sync/errgroup"
)

// encode appends a row in a form that no other row has, the same for both engines.
func encode(to []byte, row []any) []byte {
	for _, v := range row {
		switch v := v.(type) {
		case nil:
			to = append(to, 0)
		case int64:
			to = binary.BigEndian.AppendUint64(append(to, 'n'), uint64(v))
		case string:
			to = append(binary.BigEndian.AppendUint64(append(to, 't'), uint64(len(v))), v...)
		case []byte:
			to = append(binary.BigEndian.AppendUint64(append(to, 'b'), uint64(len(v))), v...)
		}
	}
	return to
}

// sum is a checksum over rows in any order: the hashes of all, added.
type sum struct {
	rows  int64
	total [4]uint64
}

func (s *sum) add(encoded []byte) {
	s.rows++
	h := sha256.Sum256(encoded)
	var carry uint64
	for i := range s.total {
		s.total[i], carry = bits.Add64(s.total[i], binary.BigEndian.Uint64(h[i*8:]), carry)
	}
}

// String is the part of it that is shown.
func (s *sum) String() string {
	return hex.EncodeToString(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, s.total[0]), s.total[1]))
}

// verify compares both sides, table by table.
func (c *copying) verify(ctx context.Context) ([]CopiedTable, error) {
	var all []CopiedTable
	var wrong []string
	for _, t := range c.tables {
		c.tell(CopyProgress{Table: t.name, Verifying: true, Of: t.rows})
		source, target, altered, err := c.compare(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("compare %s: %w", t.name, err)
		}
		if source != target {
			wrong = append(wrong, fmt.Sprintf("%s (%d rows in the source, %d in the target)", t.name, source.rows, target.rows))
		}
		c.tell(CopyProgress{Table: t.name, Verifying: true, Rows: source.rows, Of: t.rows})
		c.altered += altered
		all = append(all, CopiedTable{Name: t.name, Rows: source.rows, Checksum: source.String()})
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("the copy is not the same in %s: something wrote to one of the databases meanwhile. Copy again, into an empty database",
			listed(wrong))
	}
	return all, nil
}

func (c *copying) compare(ctx context.Context, t *table) (source, target sum, altered int64, err error) {
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() (err error) { altered, err = c.from.sum(ctx, t, &source); return err })
	both.Go(func() error { _, err := c.to.sum(ctx, t, &target); return err })
	err = both.Wait()
	return source, target, altered, err
}

// sum adds up all rows of a table.
func (e *end) sum(ctx context.Context, t *table, total *sum) (altered int64, err error) {
	rows, err := e.rows(ctx, t.selecting())
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var buffer []byte
	for rows.Next() {
		row, err := rows.SliceScan()
		if err != nil {
			return 0, err
		}
		n, err := t.normal(row)
		if err != nil {
			return 0, err
		}
		altered += n
		buffer = encode(buffer[:0], row)
		total.add(buffer)
	}
	return altered, rows.Err()
}

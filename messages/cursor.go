package messages

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"

	"rouse/ident"
)

// Cursor is an opaque place in one device's inbox. It is no secret; it is bound to its
// device so that a foreign one is refused instead of believed.
type Cursor string

// ErrBadCursor is what Parse returns for a cursor of another device or of nobody.
var ErrBadCursor = errors.New("that cursor did not come from this inbox; leave it out to start with the oldest message")

const cursorTag = 6

const cursorBytes = 8 + cursorTag

var cursorEncoding = base64.RawURLEncoding.Strict()

// NewCursor returns the cursor for the place seq in the inbox of device.
func NewCursor(device ident.Device, seq Seq) Cursor {
	var b [cursorBytes]byte
	binary.BigEndian.PutUint64(b[:8], uint64(seq))
	tag := tagOf(device, b[:8])
	copy(b[8:], tag[:])
	return Cursor(cursorEncoding.EncodeToString(b[:]))
}

// ParseCursor returns the place c stands for in the inbox of device. The one
// error is ErrBadCursor.
func ParseCursor(device ident.Device, c string) (Seq, error) {
	// The decoder skips line breaks: only the exact length makes the spelling the one that NewCursor writes.
	if len(c) != cursorEncoding.EncodedLen(cursorBytes) {
		return 0, ErrBadCursor
	}
	b, err := cursorEncoding.DecodeString(c)
	if err != nil || len(b) != cursorBytes {
		return 0, ErrBadCursor
	}
	if tagOf(device, b[:8]) != [cursorTag]byte(b[8:]) {
		return 0, ErrBadCursor
	}
	seq := Seq(binary.BigEndian.Uint64(b[:8]))
	if seq < 0 {
		return 0, ErrBadCursor
	}
	return seq, nil
}

func tagOf(device ident.Device, seq []byte) [cursorTag]byte {
	h := sha256.New()
	h.Write([]byte("rouse cursor "))
	h.Write([]byte(device))
	h.Write(seq)
	return [cursorTag]byte(h.Sum(nil)[:cursorTag])
}

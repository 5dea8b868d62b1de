package messages

import (
	"crypto/sha256"

	"rouse/ident"
)

// Poll is a poll that waits, as the store must know it to say whether it would be answered now.
type Poll struct {
	Device ident.Device
	// After is the place it reads on from; 0 is everything un-acked.
	After Seq
	// Proof is the hash of the key it came with.
	Proof [sha256.Size]byte
}

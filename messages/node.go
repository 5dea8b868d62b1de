package messages

import (
	"time"

	"rouse/ident"
)

// NodeLife is how long a node counts as alive after its last beat. Nodes of all versions on one database have to agree on it.
const NodeLife = 8 * time.Second

// Node is one of those that share a database, as its row there says. Times are of the database's clock.
type Node struct {
	ID ident.Node
	// JoinedAt is when it came, or came back after it may have counted as dead; BeatAt when it last said that it lives.
	JoinedAt, BeatAt time.Time
}

package bus

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"rouse/ident"
	"rouse/messages"
)

const (
	// beatEvery is how often a node with nothing to say shows that it is there: what was lost at the end of a burst is
	// noticed by then.
	beatEvery = 5 * time.Second
	// silenceLimit is how long a connection may carry nothing before it counts as dead.
	silenceLimit = 15 * time.Second
	// stallLimit bounds one exchange with the server.
	stallLimit = 5 * time.Second
	// farewellLimit is how long a node that ends tries to tell the others its last hints.
	farewellLimit = time.Second
	// retryFirst and retryLast bound the pause before a broken connection is tried again.
	retryFirst = 50 * time.Millisecond
	retryLast  = 2 * time.Second
	// nodeLimit bounds the nodes whose numbers are remembered; each start of a process is another node.
	nodeLimit = 1024
)

// far is what the buses between nodes share. Listeners of this node are served from memory, at once and whether or not
// the server is there; for the others hints gather while a batch is under way and leave with the next.
type far struct {
	near Memory
	node string
	out  *queue // what the other nodes have still to be told
	log  *slog.Logger
	beat time.Duration // beatEvery, but in tests
	open atomic.Int32  // ways that are connected; each is owned by its keep

	sent   uint64 // batches told; whoever is in tell owns it
	echoes echoes
	heard  map[string]uint64 // number of each other node's last batch; whoever hears owns it

	voices *voices
}

func newFar(log *slog.Logger) far {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	node := strings.TrimPrefix(string(ident.NewNode()), ident.NodePrefix)
	return far{node: node, out: newQueue(), log: log, beat: beatEvery, heard: map[string]uint64{}, voices: newVoices()}
}

// Hint hands the hints to this node's listeners and leaves them to Run for all others. It returns at once. What is too
// much to remember while the server is away is dropped, and the other nodes are told.
func (f *far) Hint(hints ...messages.Hint) {
	f.near.Hint(hints...)
	f.out.add(hints, false)
}

// Listen calls receive as Memory.Listen does, with the hints of every node. lost is also told whenever a connection was
// made: what was said before went by.
func (f *far) Listen(ctx context.Context, receive func(hints []messages.Hint, lost bool)) error {
	return f.near.Listen(ctx, receive)
}

// Others counts the other nodes that were heard in the last 15 s. Each speaks every 5 s at least, so one that is missing shares
// the bus no longer, or never did. One that ended is counted until then.
func (f *far) Others() int { return f.voices.count(time.Now()) }

// connected reports whether all of so many ways are.
func (f *far) connected(ways int32) bool { return f.open.Load() == ways }

// listening is called when hints of other nodes begin to arrive, after the first and after any gap. What the nodes
// counted before no longer says anything.
func (f *far) listening() {
	clear(f.heard)
	f.near.lose()
}

// hear hands on what arrived. Of this node's own batches, which its listeners know already, it returns the number instead, for others 0.
func (f *far) hear(payload string) (own uint64) {
	b, ok := decode(payload)
	if !ok {
		return 0
	}
	if b.node == f.node {
		return b.number
	}
	f.voices.note(b.node, time.Now())
	if f.missed(b) || b.lost {
		f.near.lose()
	}
	if len(b.hints) > 0 {
		f.near.Hint(b.hints...)
	}
	return 0
}

// missed notes the batch's number and says whether one before it never came.
func (f *far) missed(b batch) bool {
	last, known := f.heard[b.node]
	if !known && len(f.heard) >= nodeLimit {
		clear(f.heard)
	}
	f.heard[b.node] = max(last, b.number)
	return known && b.number > last+1
}

// tell sends what gathers, in payloads of at most limit bytes, until send fails or ctx is done; what has gathered by
// then it still tries to send.
func (f *far) tell(ctx context.Context, limit int, send func(ctx context.Context, payloads []string) error) error {
	beat := time.NewTicker(f.beat)
	defer beat.Stop()
	alive := context.WithoutCancel(ctx)
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		rest.Reset(tellRest)
		if err := f.flush(alive, stallLimit, limit, send); err != nil {
			return err
		}
		select {
		case <-f.out.signal:
		case <-beat.C:
		case <-ctx.Done():
			return f.flush(alive, farewellLimit, limit, send)
		}
		select {
		case <-rest.C:
		case <-ctx.Done():
			return f.flush(alive, farewellLimit, limit, send)
		}
	}
}

// tellRest is the least time between two exchanges: what is said after a silence goes at once, and what comes thick and fast
// goes together. Each exchange costs the server and every other node.
const tellRest = 2 * time.Millisecond

// burst is the most payloads one exchange carries.
const burst = 32

// flush sends all that has gathered, and a batch without hints if nothing has. What could not be sent gathers again.
func (f *far) flush(ctx context.Context, within time.Duration, limit int, send func(context.Context, []string) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	hints, lost := f.out.take()
	for {
		payloads, taken := f.pack(hints, lost, limit)
		if err := send(ctx, payloads); err != nil {
			// Some of it may have arrived: then it is heard twice, under the same numbers.
			f.out.add(hints, lost)
			f.echoes.takeBack(f.sent)
			return err
		}
		f.sent += uint64(len(payloads))
		hints, lost = hints[taken:], false
		if len(hints) == 0 {
			return nil
		}
	}
}

// pack writes the payloads of one exchange, at least one, and says how many hints they hold.
func (f *far) pack(hints []messages.Hint, lost bool, limit int) (payloads []string, taken int) {
	for len(payloads) == 0 || taken < len(hints) && len(payloads) < burst {
		b := batch{node: f.node, number: f.sent + uint64(len(payloads)) + 1, lost: lost, hints: hints[taken:]}
		payload, n := b.encode(limit)
		payloads, taken, lost = append(payloads, payload), taken+n, false
		f.echoes.pack(b.number)
	}
	return payloads, taken
}

// keep runs connect again and again until ctx is done, with longer and longer pauses while it fails; connect calls up
// once it is connected, and may call it again. It logs the first failure of a series and its end.
func (f *far) keep(ctx context.Context, what string, connect func(up func()) error) {
	pause, told := retryFirst, false
	for ctx.Err() == nil {
		isUp := false
		err := connect(func() {
			if isUp {
				return
			}
			isUp = true
			f.open.Add(1)
			if told {
				f.log.Info("the bus is connected again", "way", what)
			}
			pause, told = retryFirst, false
		})
		if isUp {
			f.open.Add(-1)
		}
		if ctx.Err() != nil {
			return
		}
		if !told {
			f.log.Warn("the bus is not connected; hints to and from other nodes wait or are lost", "way", what, "error", err)
			told = true
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
		}
		pause = min(2*pause, retryLast)
	}
}

package bus

import (
	"sync"
	"time"
)

// voiceLife is how long a node counts as one that is heard.
const voiceLife = 3 * beatEvery

// voices is when each other node was heard last.
type voices struct {
	mu   sync.Mutex
	last map[string]time.Time // guarded by mu
}

func newVoices() *voices { return &voices{last: map[string]time.Time{}} }

func (v *voices) note(node string, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.last) >= nodeLimit {
		v.forget(now)
	}
	if _, known := v.last[node]; known || len(v.last) < nodeLimit {
		v.last[node] = now
	}
}

func (v *voices) count(now time.Time) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.forget(now)
	return len(v.last)
}

// forget drops who was not heard for long. The caller holds mu.
func (v *voices) forget(now time.Time) {
	for node, at := range v.last {
		if now.Sub(at) > voiceLife {
			delete(v.last, node)
		}
	}
}

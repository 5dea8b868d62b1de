package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"rouse/ident"
	"rouse/messages"
)

// crasher kills a store on SQLite at any moment. The log is never taken into the file, so that it only grows: the file and whatever
// of the log there is at a moment is what a kill at that moment leaves.
type crasher struct {
	t    *testing.T
	dir  string
	runs int
	s    *Store
	stop func()
}

func newCrasher(t *testing.T) *crasher {
	t.Helper()
	c := &crasher{t: t, dir: t.TempDir()}
	c.begin()
	return c
}

func (c *crasher) path(run int) string { return filepath.Join(c.dir, strconv.Itoa(run)+".db") }

// begin starts a store on what is there.
func (c *crasher) begin() {
	c.s = openFile(c.t, c.path(c.runs), small)
	c.stop = start(c.t, c.s)
	c.s.connection(c.t)("wal_autocheckpoint = 0")
}

// crash kills the store while during runs, and starts another on what is left.
func (c *crasher) crash(t *rapid.T, during func()) *Store {
	old, next := c.path(c.runs), c.path(c.runs+1)
	begun, looks := size(old+"-wal"), rapid.IntRange(0, 100).Draw(t, "looks")
	done := make(chan struct{})
	go func() { defer close(done); during() }()
	for i := 0; i < looks && size(old+"-wal") == begun; i++ { // about as long as a commit takes
		runtime.Gosched()
	}
	for _, suffix := range []string{"-wal", ""} { // the file does not change
		if err := copyFile(old+suffix, next+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	<-done
	c.stop()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(old + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	c.runs++
	c.begin()
	return c.s
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o600)
}

// crashed kills the store between two calls. What was answered is still so; what was handed out, and told, may be forgotten if it was not
// written yet: then it is handed out and told again.
func (m *model) crashed(t *rapid.T) {
	rarely(t)
	m.s = m.crash(t, func() {})
	m.reread(t)
}

// crashedInASend kills the store during a send: it is there, or not, as a whole.
func (m *model) crashedInASend(t *rapid.T) {
	rarely(t)
	send, e := m.draw(t)
	b := rapid.SampledFrom(m.boxes).Draw(t, "to")
	send.To.Device = b.id
	_, over := m.room(b, e)
	refused := !m.drops && len(over) > 0
	old := m.s
	m.s = m.crash(t, func() {
		_, err := old.Accept(context.Background(), send)
		if (err != nil) != refused {
			t.Errorf("a send in a crash says %v", err)
		}
	})
	m.reread(t)
	if seq := m.placeOf(t, b.id, send.ID); seq != 0 {
		e.seq = seq
		m.last = max(m.last, seq)
		m.put(b, e)
	}
}

// rarely skips most crashes: each takes as long as fifty other steps.
func rarely(t *rapid.T) {
	if rapid.IntRange(0, 4).Draw(t, "crash if 0") > 0 {
		t.Skip("not now")
	}
}

// placeOf is where a message lies, 0 if nowhere.
func (m *model) placeOf(t *rapid.T, d ident.Device, id ident.Message) (seq messages.Seq) {
	m.do(t, m.s.reads.get(context.Background(), &seq, "SELECT COALESCE(MAX(seq), 0) FROM deliveries WHERE message = ? AND device = ?", string(id), string(d)))
	return seq
}

// reread takes over what a crash may have made forgotten, and nothing else.
func (m *model) reread(t *rapid.T) {
	for _, b := range m.boxes {
		for _, e := range b.live() {
			var fetched bool
			m.do(t, m.s.reads.get(context.Background(), &fetched, "SELECT fetched_at IS NOT NULL FROM deliveries WHERE message = ? AND device = ?", string(e.id), string(b.id)))
			if fetched && !e.fetched {
				t.Fatalf("%s was never handed out, and is told to have been", e.id)
			}
			e.fetched = fetched
		}
		told := 0
		m.do(t, m.s.reads.get(context.Background(), &told, "SELECT COALESCE(MAX(told), 0) FROM gaps WHERE device = ?", string(b.id)))
		if told > b.told {
			t.Fatalf("%s was told of %d losses, the store believes %d", b.id, b.told, told)
		}
		b.told = told
	}
}

package store

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// pager reads an inbox page by page, as a device does that acks nothing, until done, and returns what it was handed.
func pager(t testing.TB, s *Store, device ident.Device, done <-chan struct{}) (seen []messages.Seq) {
	t.Helper()
	var after messages.Seq
	for last := false; ; {
		p, err := s.Inbox(context.Background(), messages.Query{Device: device, After: &after, Limit: 100, Now: time.Now()})
		if err != nil {
			t.Error(err)
			return seen
		}
		for _, item := range p.Items {
			seen = append(seen, item.Seq)
		}
		after = p.Last
		if last && !p.More {
			return seen
		}
		select {
		case <-done:
			last = true // what was committed until now is read once more
		default:
		}
	}
}

// crowd is nodes that accept for a few devices, while others page through their inboxes.
type crowd struct {
	nodes, writers int // writers of each node
	callers        int // of each node
	messages       int // of all
	unlocked       bool
}

// skipped returns how many of all messages the pages never held.
func (c crowd) skipped(t testing.TB) (lost int) {
	t.Helper()
	all := nodes(t, c.nodes, roomy, func(o *Options) { o.Writers = c.writers })
	for _, s := range all {
		s.unlocked = c.unlocked
	}
	startAll(t, all)
	app, first := populate(t, all[0])
	devices := []ident.Device{first}
	for range 3 {
		devices = append(devices, another(t, all[0], app))
	}
	var sends, reads sync.WaitGroup
	for _, s := range all {
		for caller := range c.callers {
			sends.Go(func() {
				for n := range c.messages / c.nodes / c.callers {
					if _, err := s.Accept(context.Background(), sendTo(app, devices[(caller+n)%len(devices)])); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	done := make(chan struct{})
	go func() { sends.Wait(); close(done) }()
	seen := make([][]messages.Seq, len(devices))
	for i, d := range devices {
		reads.Go(func() { seen[i] = pager(t, all[i%len(all)], d, done) })
	}
	reads.Wait()
	lost = c.messages
	for _, pages := range seen {
		if !slices.IsSorted(pages) || len(slices.Compact(slices.Clone(pages))) != len(pages) {
			t.Error("the pages are not in order")
		}
		lost -= len(pages)
	}
	return lost
}

// Eight writers at once: of as many nodes, and of four nodes with two each.
func TestACursorSkipsNothingWhileEightWrite(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]crowd{
		"eight nodes":                      {nodes: 8, writers: 1, callers: 64, messages: crowdOf},
		"four nodes with two writers each": {nodes: 4, writers: 2, callers: 128, messages: crowdOf / 2},
	} {
		t.Run(name, func(t *testing.T) {
			if n := c.skipped(t); n != 0 {
				t.Errorf("%d of %d messages were skipped", n, c.messages)
			}
		})
	}
}

// Without the locks a cursor does skip: the test above can fail.
func TestWithoutLocksACursorSkips(t *testing.T) {
	t.Parallel()
	c := crowd{nodes: 8, writers: 1, callers: 64, messages: crowdOf / 8, unlocked: true}
	n := c.skipped(t)
	if n == 0 {
		t.Error("nothing was skipped, though nothing was locked")
	}
	t.Logf("%d of %d messages were skipped", n, c.messages)
}

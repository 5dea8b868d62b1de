package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// vitals is how a server process is.
type vitals struct {
	goroutines, files int
	// resident is memory of the process, heap what the collector found alive and lets grow to, twice as much.
	resident, heap float64
	// wakes counts the pushes by provider and verdict.
	wakes map[string]int
}

func (v vitals) String() string {
	return fmt.Sprintf("%d goroutines, %d files, %.0f MiB resident, heap goal %.0f MiB", v.goroutines, v.files, v.resident/(1<<20), v.heap/(1<<20))
}

// vitals reads them from the server's metrics.
func (c *child) vitals(ctx context.Context) (vitals, error) {
	v := vitals{wakes: map[string]int{}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.at.ops+"/metrics", http.NoBody)
	if err != nil {
		return v, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return v, err
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		name, text, _ := strings.Cut(lines.Text(), " ")
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			continue
		}
		switch {
		case name == "go_goroutines":
			v.goroutines = int(value)
		case name == "process_open_fds":
			v.files = int(value)
		case name == "process_resident_memory_bytes":
			v.resident = value
		case name == "go_memstats_next_gc_bytes":
			v.heap = value
		case strings.HasPrefix(name, "rouse_wakes_total{"):
			v.wakes[name[len("rouse_wakes_total"):]] = int(value)
		}
	}
	return v, lines.Err()
}

// mustVitals are the vitals now.
func (c *child) mustVitals(t *testing.T) vitals {
	t.Helper()
	v, err := c.vitals(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (r *rig) mustVitals() vitals {
	r.t.Helper()
	return r.child.mustVitals(r.t)
}

// How far from its start a server may be once it is idle again: connections to providers stay open for a while, and so do the
// database's readers.
const (
	moreGoroutines = 20
	moreFiles      = 12
)

// settled returns the server's vitals once it is as idle as it was, or after the limit, and fails then.
func (c *child) settled(t *testing.T, was vitals, limit time.Duration) vitals {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		v := c.mustVitals(t)
		if v.goroutines <= was.goroutines+moreGoroutines && v.files <= was.files+moreFiles {
			return v
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Errorf("idle for %v, the server has %v; at its start it had %v", limit, v, was)
			return v
		}
	}
}

// flat fails if memory grew between two moments of the same process under the same load.
func flat(t *testing.T, early, late vitals) {
	t.Helper()
	const mib = 1 << 20
	if late.heap > early.heap*1.5+16*mib {
		t.Errorf("the live heap grows: goal %.0f MiB after a quarter of the time, %.0f MiB at the end", early.heap/mib, late.heap/mib)
	}
	if late.resident > early.resident*1.5+48*mib {
		t.Errorf("memory grows: %.0f MiB resident after a quarter of the time, %.0f MiB at the end", early.resident/mib, late.resident/mib)
	}
}

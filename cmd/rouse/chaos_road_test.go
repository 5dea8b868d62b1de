package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// road carries the calls of a crowd to the nodes of a fleet, each to any of them, as a load balancer would that knows nothing of their
// health; and it notes every poll that was not answered in time.
type road struct {
	fleet *fleet
	under http.RoundTripper

	mu    sync.Mutex
	polls int
	late  []latePoll
}

const (
	// pollSlack is what a poll may take beyond its wait: 1.8 s by the server, and what a busy machine adds on the way.
	pollSlack = 3 * time.Second
	// roadPatience is what a client gives a call beyond its wait, before it tries another node.
	roadPatience = 5 * time.Second
)

// latePoll is one that was not answered within its wait and pollSlack.
type latePoll struct {
	node   *machine
	began  time.Time
	wait   time.Duration
	acks   bool
	took   time.Duration
	answer string
}

func (l latePoll) String() string {
	does := "reads"
	if l.acks {
		does = "acks and reads"
	}
	return fmt.Sprintf("%s node %s: a poll of %v that %s took %v: %s", l.began.Format("15:04:05.0"), l.node.name, l.wait, does, l.took.Round(time.Millisecond), l.answer)
}

// excused reports whether the node could not answer in time because it stood still: it may have heard of the poll only when it went on.
func (l latePoll) excused() bool {
	until, frozen := l.node.wasFrozen(l.began, l.began.Add(l.took))
	return frozen && l.began.Add(l.took).Before(until.Add(l.wait+pollSlack))
}

// RoundTrip sends the call to a node.
func (r *road) RoundTrip(req *http.Request) (*http.Response, error) {
	node := r.fleet.nodes[rand.IntN(len(r.fleet.nodes))]
	wait, isPoll := pollWait(req)
	ctx, cancel := context.WithTimeout(req.Context(), wait+roadPatience)
	sent := req.Clone(ctx)
	sent.URL.Host = *node.host.Load()
	began := time.Now()
	res, err := r.under.RoundTrip(sent)
	if took := time.Since(began); isPoll && req.Context().Err() == nil {
		r.note(latePoll{node: node, began: began, wait: wait, acks: req.URL.Query().Has("ack"), took: took, answer: outcome(res, err)})
	}
	if err != nil {
		cancel()
		return nil, err
	}
	res.Body = &cancelingBody{res.Body, cancel}
	return res, nil
}

func (r *road) note(l latePoll) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.polls++
	if l.took > l.wait+pollSlack {
		r.late = append(r.late, l)
	}
}

// pollWait is how long the call asks to wait, and whether it is one that may.
func pollWait(req *http.Request) (wait time.Duration, isPoll bool) {
	if req.Method != http.MethodGet || !strings.HasSuffix(req.URL.Path, "/v1/inbox") {
		return 0, false
	}
	seconds, err := strconv.Atoi(req.URL.Query().Get("wait"))
	return time.Duration(seconds) * time.Second, err == nil
}

func outcome(res *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	return res.Status
}

// cancelingBody ends the call's context with the body.
type cancelingBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *cancelingBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// hung are the polls that nothing excuses.
func (r *road) hung() (polls int, hung, excused []latePoll) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.late {
		if l.excused() {
			excused = append(excused, l)
		} else {
			hung = append(hung, l)
		}
	}
	return r.polls, hung, excused
}

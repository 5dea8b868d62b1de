package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// What devices report of their users is kept beside a delivery's state, and changes nothing of it.

// reportKinds are the kinds of report, in the order of a reportTally.
var reportKinds = [3]messages.ReportKind{messages.Displayed, messages.Opened, messages.Dismissed}

// reportTally counts reports by kind.
type reportTally [len(reportKinds)]int64

// Statements of each kind. A report is not of before its message was there: phones' clocks are off.
const (
	noteReport = `UPDATE deliveries SET kind_at = CASE WHEN created_at > ?1 THEN created_at ELSE ?1 END
		WHERE device = ?2 AND message = ?3 AND kind_at IS NULL RETURNING message, app, shared, COALESCE(correlation_id, ''), kind_at`
	noteReportsAtOnce = `UPDATE deliveries AS d SET kind_at = GREATEST(d.created_at, n.at)
		FROM unnest(CAST(? AS TEXT[]), CAST(? AS BIGINT[])) AS n (message, at) WHERE d.device = ? AND d.message = n.message
		AND d.kind_at IS NULL RETURNING d.message, d.app, d.shared, COALESCE(d.correlation_id, ''), d.kind_at`
	countReports = "UPDATE messages SET displayed = displayed + ?, opened = opened + ?, dismissed = dismissed + ? WHERE id = ?"
)

var (
	noteReportOf        = ofEachKind(noteReport)
	noteReportsAtOnceOf = ofEachKind(noteReportsAtOnce)
	reportEvents        = [len(reportKinds)]messages.EventType{messages.MessageDisplayed, messages.MessageOpened, messages.MessageDismissed}
)

func ofEachKind(query string) (list [len(reportKinds)]string) {
	for i, kind := range reportKinds {
		list[i] = strings.ReplaceAll(query, "kind_at", string(kind)+"_at")
	}
	return list
}

// Report notes what the device's user did with messages, in one commit, and returns how much of it was new: the first report of a
// kind counts. Messages that are not of its inbox are ignored. A time that lies ahead is now.
func (s *Store) Report(ctx context.Context, device ident.Device, list []messages.Report, now time.Time) (int, error) {
	kinds, n := firstOfEach(list, now), 0
	err := s.write(ctx, "note reports", newOp(func(t *tx) error {
		n = 0
		for kind, list := range kinds {
			some, err := t.report(device, kind, list, now)
			if n += some; err != nil {
				return fmt.Errorf("note reports: %w", err)
			}
		}
		return nil
	}).locking(device))
	if err != nil {
		return 0, err
	}
	return n, nil
}

// firstOfEach sorts reports by kind, and keeps the first of each message.
func firstOfEach(list []messages.Report, now time.Time) (kinds [len(reportKinds)][]messages.Report) {
	type which struct {
		message ident.Message
		kind    messages.ReportKind
	}
	seen := map[which]bool{}
	for _, r := range list {
		kind := slices.Index(reportKinds[:], r.Kind)
		if at := (which{r.Message, r.Kind}); kind >= 0 && !seen[at] {
			seen[at] = true
			if r.At.IsZero() || r.At.After(now) {
				r.At = now
			}
			kinds[kind] = append(kinds[kind], r)
		}
	}
	return kinds
}

// report notes reports of one kind and returns how many were new.
func (t *tx) report(device ident.Device, kind int, list []messages.Report, now time.Time) (n int, err error) {
	reported := func(r row) error {
		d := ending{Device: device}
		var shared, at int64
		if err := r.Scan(&d.Message, &d.App, &shared, &d.Correlation, &at); err != nil {
			return err
		}
		n++
		t.reported(d, kind, shared != 0, fromMillis(at), now)
		return nil
	}
	if !t.w.travels() {
		for _, r := range list {
			if err := t.ask(reported, noteReportOf[kind], millis(r.At), string(device), string(r.Message)); err != nil {
				return n, err
			}
		}
		return n, nil
	}
	if len(list) == 0 {
		return 0, nil
	}
	ids, ats := make([]string, len(list)), make([]int64, len(list))
	for i, r := range list {
		ids[i], ats[i] = plainText(string(r.Message)), millis(r.At)
	}
	if err := t.ask(reported, noteReportsAtOnceOf[kind], ids, ats, string(device)); err != nil {
		return n, err
	}
	err = t.w.travel()
	return n, err
}

// reported tells of a report that was new, and counts it.
func (t *tx) reported(d ending, kind int, shared bool, at, now time.Time) {
	t.writes++
	if shared {
		if t.reports[d.Message] == nil {
			t.reports[d.Message] = &reportTally{}
		}
		t.reports[d.Message][kind]++
	}
	if !t.w.store.wanted(d.App, reportEvents[kind]) {
		return
	}
	p := t.pack(d.App, reportEvents[kind], millis(now))
	b := appendDelivery(p.text, d.Message, d.Device, d.Correlation)
	when, err := json.Marshal(at)
	if err != nil {
		when = []byte("null") // a time of this age always marshals
	}
	p.text = append(append(append(b, `,"at":`...), when...), '}', '}')
}

// flushReports adds up the reports of messages that several devices share.
func (t *tx) flushReports() error {
	for _, id := range slices.Sorted(maps.Keys(t.reports)) {
		c := t.reports[id]
		if err := t.later(countReports, c[0], c[1], c[2], string(id)); err != nil {
			return fmt.Errorf("count reports: %w", err)
		}
	}
	return nil
}

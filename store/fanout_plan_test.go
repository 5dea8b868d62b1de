package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"rouse/ident"
	"rouse/messages"
)

// fanStatements are those of fan-outs and lists that both engines know.
var fanStatements = map[string]string{
	"apps with something due": selectDueApps, "what is due of an app": selectDue, "a fan-out": selectFan, "may fan": mayFan, "move": moveFan,
	"everybody": audienceAll, "a topic's": audienceTopic, "a user's": audienceUser, "take back": takeBackPage, "move back": moveBack,
	"cancel": cancelPost, "known": messageKnown, "pending alone": pendingAlone, "pending of": selectPendingOf,
	"list posts": listAppsPosts, "list an audience": listAudience, "list a correlation": listCorrelation, "list deliveries": listAllSingles,
	"list a user's": listUserSingles, "list correlated": listCorrelated,
}

// No statement of a fan-out or a list may walk a whole table.
func TestFanOutsUseIndexes(t *testing.T) {
	t.Parallel()
	s := openForPlans(t)
	take := func(also string, n int) string {
		return fmt.Sprintf(fanTake+fanTakeFrom+also+fanFits, n, n+1, n+2, n+3)
	}
	all := map[string]string{"boxes": fanBoxes + fanByItself + fanBoxesFrom + fanBoxesJSON, "boxes of a topic": fanBoxes + fanVia + fanBoxesFrom + fanBoxesJSON + fanSubscribed,
		"boxes of a user": fanBoxes + fanByItself + fanBoxesFrom + fanBoxesJSON + fanOfUser, "untaken": fanUntaken,
		"take": take("", 3), "take of a topic": take(fanSubscribed, 5), "take of a user": take(fanOfUser, 4),
		"holders": fanHoldersJSON, "insert": fanInsertJSON, "insert of a topic": fanInsertTopic, "count": fanCount,
		"stretch": deviceStretch, "a stretch's": listDevice}
	for _, statements := range []map[string]string{fanStatements, all} {
		for name, query := range statements {
			plan := planOf(t, s, query)
			for _, step := range plan {
				// j is a page's list, a the recursion's apps, one is one row.
				walks := strings.HasPrefix(step, "SCAN") && !slices.ContainsFunc([]string{"SCAN j ", "SCAN json_each ", "SCAN a", "SCAN one", "SCAN CONSTANT ROW"}, func(p string) bool { return strings.HasPrefix(step, p) })
				if walks || strings.Contains(step, "USE TEMP B-TREE") && name != "holders" {
					t.Errorf("%s: %s\n%s", name, step, strings.Join(plan, "\n"))
				}
			}
		}
	}
}

func TestFanOutsUseIndexesOnPostgres(t *testing.T) {
	t.Parallel()
	s, conn := forPlans(t)
	all := map[string]string{"boxes": fanBoxes + fanByItself + fanBoxesFrom + fanBoxesArrays,
		"boxes of a topic": fanBoxes + fanVia + fanBoxesFrom + fanBoxesArrays + fanSubscribed, "boxes of a user": fanBoxes + fanByItself + fanBoxesFrom + fanBoxesArrays + fanOfUser,
		"fitting": fmt.Sprintf(fanFitting+fanFits, 3, 4), "fitting of a topic": fmt.Sprintf(fanFitting+fanHasItself+fanFits, 5, 6),
		"fitting of a user": fmt.Sprintf(fanFitting+fanOfUser+fanFits, 4, 5), "count": fanCountArrays,
		"holders": fanHoldersArrays, "insert": fanInsertArrays, "end": endedAtOnce, "list a device's": listDevice, "singles": selectSinglesOf}
	for _, statements := range []map[string]string{fanStatements, all} {
		for name, query := range statements {
			plan := planPG(t, s, conn, query)
			for _, step := range walks(plan) {
				// The first app is the first of the index; apps are few.
				if !strings.Contains(step, "messages_due") && !strings.Contains(step, "apps_pkey") {
					t.Errorf("%s: walks: %s\n%s", name, step, strings.Join(plan, "\n"))
				}
			}
		}
	}
}

// A page from the middle of a broadcast reads no inboxes from before it, even if PostgreSQL goes through both side by side.
func TestAPageOfDeliveriesBeginsWhereItBegins(t *testing.T) {
	t.Parallel()
	s, conn := forPlans(t)
	for _, off := range []string{"nestloop", "hashjoin"} {
		if _, err := conn.ExecContext(t.Context(), "SET enable_"+off+" = off"); err != nil {
			t.Fatal(err)
		}
	}
	for _, query := range []string{selectDeliveries, selectPendingOf} {
		if plan := planPG(t, s, conn, query); len(walks(plan)) > 0 || !strings.Contains(strings.Join(plan, " "), "Merge") {
			t.Errorf("it walks:\n%s", strings.Join(plan, "\n"))
		}
	}
}

// audiences has fan-outs, batches and lists do what they do.
func (j *journey) audiences() {
	later := func(m *messages.Send) { m.SendAt = j.now.Add(1) }
	one := j.accept(j.to(j.list[3], later))
	sends := map[ident.Message]int{}
	for _, to := range []messages.Target{{Topic: "fans"}, {Broadcast: true}, {User: "fan"}} {
		for _, key := range []string{"", "k"} {
			m := j.to("", func(m *messages.Send) { m.To, m.CollapseKey, m.CorrelationID, m.SendAt = to, key, "c", j.now.Add(1) })
			sends[j.accept(m).ID] = 4
		}
	}
	_, err := j.s.Subscribe(j.ctx, j.app, "fans", j.list[4:8], j.now)
	j.must(err)
	j.must(j.s.BindUser(j.ctx, j.app, "fan", j.list[4], j.now))
	now := j.now.Add(1000000)
	j.during("seldom: look for what is due, and store it", func() {
		_, err := j.s.FanJobs(j.ctx, now, 10)
		j.must(err)
		sends[one.ID] = 4
		for id, limit := range sends {
			for done := false; !done; {
				page, err := j.s.FanOut(j.ctx, id, limit, now)
				j.must(err)
				done = page.Done
			}
		}
	})
	j.during("seldom: cancel, list", func() {
		for id := range sends {
			_, err := j.s.Message(j.ctx, j.app, id)
			j.must(err)
			_, err = j.s.Cancel(j.ctx, j.app, id, now)
			j.must(err)
		}
		for _, q := range []messages.ListQuery{{}, {To: messages.Target{User: "fan"}}, {To: messages.Target{Device: j.list[3]}}, {CorrelationID: "c"}} {
			q.App, q.Limit = j.app, 100
			_, err := j.s.Messages(j.ctx, q)
			j.must(err)
		}
	})
	j.during("many: accept in one commit", func() {
		var list []messages.Send
		for _, d := range j.list[4:8] {
			list = append(list, j.to(d))
		}
		_, err := j.s.AcceptAll(j.ctx, list)
		j.must(err)
	})
}

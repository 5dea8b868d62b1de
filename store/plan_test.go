package store

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rouse/tokens"
)

func openForPlans(t *testing.T) *Store {
	t.Helper()
	ring, err := tokens.ParseRing(tokens.NewRingKey("test"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(context.Background(), Options{DSN: "sqlite:" + t.TempDir() + "/plans.db", Ring: ring})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Migrate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s
}

// hotStatements are those of the daily work.
var hotStatements = map[string]string{
	"inbox": readInbox, "item": readItem, "waiting": readWaiting, "ack up to": ackUpTo, "ack one": ackOne, "ack many": ackMany,
	"end": endDelivery, "mark a page": markPage, "deliveries of a message": selectDeliveries, "sweep": sweepRows, "boxes": selectBoxes.sizes[3],
	"device": selectDevice, "counts": updateCounts, "marks": updateMarks, "post": selectPost, "wakes": selectWakes, "wake chain": wakeChain + " SELECT id FROM chain", "wake": insertWake,
	"auth": selectAuth, "token": updateVerdict, "supersede": supersede, "holder": selectHolder, "demotion": noteDemotion, "deaths": selectDeaths, "sleeper": selectSleeper,
	"circuit": selectCircuit, "close a circuit": deleteCircuit, "change a circuit": changeCircuit, "may open a circuit": mayOpenCircuit,
	"a provider's circuits": providersOpen, "an app's circuits": appsCircuits, "credential": "SELECT " + credentialColumns + " FROM credentials c WHERE c.app = ? AND c.provider = ?",
	"events": selectEvents, "old events": oldEvents, "an app's events": appsEvents, "event": insertEvents, "report": noteReportOf[0],
	"expiring": selectExpiring, "note an expiry": noteExpiry, "expiries": selectExpiries,
	"key": selectKey, "keys": selectKeys, "use of a key": noteKeyUsed, "identity keys": selectIdentityKeys,
	"left": selectLeft, "leave": deleteLeft, "follow": insertFollowed, "a user's topics": selectUserTopics, "a user": userOf.sizes[3],
	"own topics": selectOwnTopics, "a device's topics": selectTopicsOf, "end of subscriptions": deleteSubscriptions,
	"own topics of some": ownTopicsOf.sizes[3], "registered of some": registeredOf.sizes[3], "unsubscribe some": unsubscribesOf.sizes[3],
	"topics": selectTopics, "topic": selectTopic, "subscribers": countSubscribers, "devices of a topic": selectSubscribers, "users of a topic": deleteTopicUsers,
	"standings": standingsOf.sizes[3], "fleet": fleetOfApp, "fleet of a user": fleetOfUser, "fleet of a topic": fleetOfTopic, "subscribers of some": subscribersOf.sizes[3],
	"to erase": selectErasable, "sent to a user": selectSentTo, "sends to a user": selectAudienceFor, "one sent": selectSent, "erase one sent": deleteSent,
	"expire": "SELECT " + endingColumns + " FROM deliveries WHERE ended_at IS NULL AND expires_at <= ? ORDER BY expires_at LIMIT 0 + ?",
}

// No statement of the daily work may walk a whole table that grows with traffic.
func TestEveryHotStatementUsesAnIndex(t *testing.T) {
	t.Parallel()
	s := openForPlans(t)
	for name, query := range hotStatements {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// p is one row, the chain is a few.
			for _, step := range planOf(t, s, query) {
				t.Log(step)
				if strings.HasPrefix(step, "SCAN") && !slices.Contains([]string{"SCAN p", "SCAN c", "SCAN chain"}, step) {
					t.Errorf("walks a whole table: %s", step)
				}
			}
		})
	}
}

// An app may have millions of devices: a user's are found without passing over the others.
func TestAUsersDevicesAreFoundByTheirIndex(t *testing.T) {
	t.Parallel()
	s := openForPlans(t)
	for _, query := range []string{countOthers, selectDevicesOf} {
		if plan := planOf(t, s, query); len(plan) != 1 || !strings.Contains(plan[0], " devices_user (app=? AND user_id=?") {
			t.Errorf("%s: %v", query, plan)
		}
	}
}

// planOf returns the steps in which the engine would run query.
func planOf(t *testing.T, s *Store, query string) (steps []string) {
	t.Helper()
	args := make([]any, parameters(query))
	for i := range args {
		args[i] = 1
	}
	var plan []struct {
		ID, Parent, Notused int
		Detail              string
	}
	if err := s.writes.Select(&plan, "EXPLAIN QUERY PLAN "+query, args...); err != nil {
		t.Fatal(err)
	}
	for _, step := range plan {
		steps = append(steps, step.Detail)
	}
	return steps
}

// parameters counts those of a statement: the highest number, or the question marks without one, which are numbered from 1 on as well.
func parameters(query string) int {
	highest, plain := 0, 0
	for _, p := range regexp.MustCompile(`\?(\d*)`).FindAllStringSubmatch(query, -1) {
		n, _ := strconv.Atoi(p[1])
		highest = max(highest, n)
		if p[1] == "" {
			plain++
		}
	}
	return max(highest, plain)
}

package store

import (
	"context"
	"fmt"

	"rouse/fault"
	"rouse/ident"
	"rouse/tokens"
)

const (
	selectTopics = "SELECT name, created_at FROM topics WHERE app = ? AND name > ? ORDER BY name LIMIT 0 + ?"
	selectTopic  = "SELECT name, created_at FROM topics WHERE app = ? AND name = ?"
	// countSubscribers counts the devices of each of a stretch of topics.
	countSubscribers = `SELECT topic, COUNT(DISTINCT device) AS subscribers FROM subscriptions
		WHERE app = ? AND topic >= ? AND topic <= ? GROUP BY topic`
	selectSubscribers = "SELECT DISTINCT device FROM subscriptions WHERE app = ? AND topic = ? ORDER BY device LIMIT 0 + ?"
	deleteTopicUsers  = `DELETE FROM user_topics WHERE (app, user_id, topic) IN
		(SELECT app, user_id, topic FROM user_topics WHERE app = ? AND topic = ? ORDER BY user_id LIMIT 0 + ?)`
)

func topicNotFound() *fault.Error {
	return fault.New(fault.NotFound, "topic_not_found", "there is no such topic: one comes to be with its first subscriber")
}

type topicRow struct {
	Name      string `db:"name"`
	CreatedAt int64  `db:"created_at"`
}

// Topics returns up to limit topics whose names follow after, by name, with the devices of each counted, and whether there are more.
func (s *Store) Topics(ctx context.Context, app ident.App, after string, limit int) (list []tokens.Topic, more bool, err error) {
	var rows []topicRow
	if err := s.reads.list(ctx, &rows, selectTopics, string(app), after, limit+1); err != nil {
		return nil, false, s.readError("list topics", err)
	}
	if more = len(rows) > limit; more {
		rows = rows[:limit]
	}
	if len(rows) == 0 {
		return nil, more, nil
	}
	counts, err := s.subscribers(ctx, app, rows[0].Name, rows[len(rows)-1].Name)
	if err != nil {
		return nil, false, err
	}
	for _, r := range rows {
		list = append(list, tokens.Topic{Name: r.Name, Subscribers: counts[r.Name], CreatedAt: fromMillis(r.CreatedAt)})
	}
	return list, more, nil
}

// Topic returns a topic with its devices counted; NotFound "topic_not_found".
func (s *Store) Topic(ctx context.Context, app ident.App, name string) (tokens.Topic, error) {
	var rows []topicRow
	if err := s.reads.list(ctx, &rows, selectTopic, string(app), name); err != nil {
		return tokens.Topic{}, s.readError("read a topic", err)
	}
	if len(rows) == 0 {
		return tokens.Topic{}, topicNotFound()
	}
	counts, err := s.subscribers(ctx, app, name, name)
	if err != nil {
		return tokens.Topic{}, err
	}
	return tokens.Topic{Name: name, Subscribers: counts[name], CreatedAt: fromMillis(rows[0].CreatedAt)}, nil
}

// subscribers counts the devices of the topics between two, both included.
func (s *Store) subscribers(ctx context.Context, app ident.App, from, to string) (map[string]int, error) {
	var rows []struct {
		Topic       string `db:"topic"`
		Subscribers int    `db:"subscribers"`
	}
	if err := s.reads.list(ctx, &rows, countSubscribers, string(app), from, to); err != nil {
		return nil, s.readError("count subscribers", err)
	}
	counts := make(map[string]int, len(rows))
	for _, r := range rows {
		counts[r.Topic] = r.Subscribers
	}
	return counts, nil
}

// DeleteTopic removes a topic with all subscriptions, piece by piece; the topic itself goes with the last of them. If it is
// interrupted, calling it again finishes. NotFound "topic_not_found".
func (s *Store) DeleteTopic(ctx context.Context, app ident.App, name string) error {
	for {
		done := false
		err := s.write(ctx, "delete a topic", newOp(func(t *tx) (err error) {
			done, err = t.deleteTopic(app, name)
			return err
		}))
		if err != nil || done {
			return err
		}
	}
}

// deleteTopic removes a piece of a topic, and reports whether it was the last. Users go first: a device that comes to one of them
// subscribes no more. Nobody subscribes meanwhile, for the topic is claimed: what the last piece leaves is nothing.
func (t *tx) deleteTopic(app ident.App, name string) (done bool, err error) {
	if err := t.claimTopic(app, name); err != nil {
		return false, fmt.Errorf("claim a topic: %w", err)
	}
	var rows []topicRow
	if err := t.list(&rows, selectTopic, string(app), name); err != nil {
		return false, fmt.Errorf("read a topic: %w", err)
	}
	if len(rows) == 0 {
		return false, topicNotFound()
	}
	users, err := t.exec(deleteTopicUsers, string(app), name, purgeAtATime)
	if err != nil {
		return false, fmt.Errorf("unsubscribe users: %w", err)
	}
	if users == purgeAtATime {
		return false, nil
	}
	n, err := t.deleteSubscribers(app, name)
	if err != nil || n == purgeAtATime {
		return false, err
	}
	_, err = t.exec("DELETE FROM topics WHERE app = ? AND name = ?", string(app), name)
	return true, err
}

// deleteSubscribers removes up to purgeAtATime devices from a topic, and returns how many that were.
func (t *tx) deleteSubscribers(app ident.App, topic string) (int, error) {
	var devices []ident.Device
	if err := t.list(&devices, selectSubscribers, string(app), topic, purgeAtATime); err != nil {
		return 0, fmt.Errorf("list subscribers: %w", err)
	}
	err := t.eachPiece(deleteSubscriptionsOf, devices, func(query string, args ...any) error {
		_, err := t.exec(query, args...)
		return err
	}, topic)
	if err != nil {
		return 0, fmt.Errorf("end subscriptions: %w", err)
	}
	return len(devices), nil
}

var deleteSubscriptionsOf = ofDevices("DELETE FROM subscriptions WHERE topic = ? AND device ", "")

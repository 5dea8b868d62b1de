-- +goose Up
ALTER TABLE apps ADD COLUMN registration TEXT NOT NULL DEFAULT 'open';
ALTER TABLE apps ADD COLUMN broadcast_rate BIGINT NOT NULL DEFAULT 2000; -- devices a second that its fan-outs reach
ALTER TABLE apps ADD COLUMN event_types TEXT; -- words with a space between; NULL is all
ALTER TABLE apps ADD COLUMN rate_milli BIGINT NOT NULL DEFAULT 0; -- calls in 1000 s; 0 is no limit
ALTER TABLE apps ADD COLUMN rate_burst BIGINT NOT NULL DEFAULT 0;
ALTER TABLE keys ADD COLUMN last_used_at BIGINT;
ALTER TABLE keys ADD COLUMN rate_milli BIGINT NOT NULL DEFAULT 0; -- calls in 1000 s; 0 is no limit
ALTER TABLE keys ADD COLUMN rate_burst BIGINT NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN audience TEXT NOT NULL DEFAULT 'user'; -- what user_id names: user, device, topic, or all for a broadcast
ALTER TABLE messages ADD COLUMN send_at BIGINT; -- when it was scheduled for
ALTER TABLE messages ADD COLUMN due_at BIGINT; -- a page of it is to be stored then, or, canceled, to be taken back; NULL when nothing is
ALTER TABLE messages ADD COLUMN fan_cursor TEXT; -- the device up to which it is stored, or taken back; NULL before the first page
ALTER TABLE messages ADD COLUMN notification TEXT; -- JSON, while due_at is set
ALTER TABLE messages ADD COLUMN acked BIGINT NOT NULL DEFAULT 0; -- deliveries that ended so, as all below
ALTER TABLE messages ADD COLUMN expired BIGINT NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN replaced BIGINT NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN canceled BIGINT NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN dropped BIGINT NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN displayed BIGINT NOT NULL DEFAULT 0; -- devices that reported so, as the two below
ALTER TABLE messages ADD COLUMN opened BIGINT NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN dismissed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN displayed_at BIGINT; -- by the device's report, as the two below
ALTER TABLE deliveries ADD COLUMN opened_at BIGINT;
ALTER TABLE deliveries ADD COLUMN dismissed_at BIGINT;
ALTER TABLE events ADD COLUMN count BIGINT NOT NULL DEFAULT 0; -- of a row that holds several events as a JSON array in data; 0 is one event by itself

-- What is scheduled, or being stored.
CREATE INDEX messages_due ON messages (app, due_at) WHERE due_at IS NOT NULL;
-- Sends to one audience.
CREATE INDEX messages_user ON messages (app, audience, user_id, id) WHERE user_id <> '';
CREATE INDEX messages_correlation ON messages (app, correlation_id, id) WHERE correlation_id IS NOT NULL;
-- What was sent to one user, to be listed and to be erased.
CREATE INDEX deliveries_user ON deliveries (app, to_user, message) WHERE to_user IS NOT NULL;
CREATE INDEX deliveries_correlation ON deliveries (app, correlation_id, message) WHERE correlation_id IS NOT NULL;

-- Topics that have, or had, a subscriber.
CREATE TABLE topics (
  app        TEXT   NOT NULL,
  name       TEXT   NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (app, name)
) WITHOUT ROWID;

-- A device's subscriptions. via is '' for its own, else the user it has it from: it goes when the device is no longer that user's.
CREATE TABLE subscriptions (
  device     TEXT   NOT NULL,
  topic      TEXT   NOT NULL,
  via        TEXT   NOT NULL,
  app        TEXT   NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (device, topic, via)
) WITHOUT ROWID;
CREATE INDEX subscriptions_topic ON subscriptions (app, topic, device);

-- What a user is subscribed to, with whatever devices.
CREATE TABLE user_topics (
  app        TEXT   NOT NULL,
  user_id    TEXT   NOT NULL,
  topic      TEXT   NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (app, user_id, topic)
) WITHOUT ROWID;
CREATE INDEX user_topics_topic ON user_topics (app, topic, user_id);

-- What user tokens are checked with.
CREATE TABLE identity_keys (
  app         TEXT   NOT NULL,
  kid         TEXT   NOT NULL,
  algorithm   TEXT   NOT NULL,
  fingerprint TEXT   NOT NULL,
  material    BLOB   NOT NULL, -- a public key in PEM, or a secret; sealed for "identity:app:kid"
  created_at  BIGINT NOT NULL,
  PRIMARY KEY (app, kid)
) WITHOUT ROWID;

-- Where events are posted. place is that of the last event that was taken, or lies in webhook_retries.
CREATE TABLE webhooks (
  id              TEXT   NOT NULL PRIMARY KEY,
  app             TEXT   NOT NULL,
  url             TEXT   NOT NULL,
  event_types     TEXT   NOT NULL, -- words with a space between
  description     TEXT   NOT NULL,
  secret          BLOB   NOT NULL, -- sealed for "webhook:id", as is the next
  secret_previous BLOB,
  previous_until  BIGINT,
  created_at      BIGINT NOT NULL,
  disabled_at     BIGINT,
  disabled_reason TEXT   NOT NULL DEFAULT '',
  place           BIGINT NOT NULL,
  term            BIGINT NOT NULL DEFAULT 0, -- grows when the place is moved by hand: who sends must not move it back
  failing_since   BIGINT,
  attempts        BIGINT NOT NULL DEFAULT 0, -- since then
  next_at         BIGINT,
  last_success_at BIGINT,
  last_error      TEXT   NOT NULL DEFAULT ''
);
CREATE INDEX webhooks_app ON webhooks (app, id);

-- Single events that a webhook has not taken while it took others, and those of the same device behind them.
CREATE TABLE webhook_retries (
  webhook    TEXT   NOT NULL,
  place      BIGINT NOT NULL, -- the event's
  device     TEXT   NOT NULL, -- whose order it keeps; '' for none
  attempts   BIGINT NOT NULL,
  first_at   BIGINT NOT NULL,
  next_at    BIGINT NOT NULL,
  last_error TEXT   NOT NULL,
  PRIMARY KEY (webhook, place)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE webhook_retries;
DROP TABLE webhooks;
DROP TABLE identity_keys;
DROP TABLE user_topics;
DROP TABLE subscriptions;
DROP TABLE topics;
DROP INDEX deliveries_correlation;
DROP INDEX deliveries_user;
DROP INDEX messages_correlation;
DROP INDEX messages_user;
DROP INDEX messages_due;
ALTER TABLE events DROP COLUMN count;
ALTER TABLE deliveries DROP COLUMN dismissed_at;
ALTER TABLE deliveries DROP COLUMN opened_at;
ALTER TABLE deliveries DROP COLUMN displayed_at;
ALTER TABLE messages DROP COLUMN dismissed;
ALTER TABLE messages DROP COLUMN opened;
ALTER TABLE messages DROP COLUMN displayed;
ALTER TABLE messages DROP COLUMN dropped;
ALTER TABLE messages DROP COLUMN canceled;
ALTER TABLE messages DROP COLUMN replaced;
ALTER TABLE messages DROP COLUMN expired;
ALTER TABLE messages DROP COLUMN acked;
ALTER TABLE messages DROP COLUMN notification;
ALTER TABLE messages DROP COLUMN fan_cursor;
ALTER TABLE messages DROP COLUMN due_at;
ALTER TABLE messages DROP COLUMN send_at;
ALTER TABLE messages DROP COLUMN audience;
ALTER TABLE keys DROP COLUMN rate_burst;
ALTER TABLE keys DROP COLUMN rate_milli;
ALTER TABLE keys DROP COLUMN last_used_at;
ALTER TABLE apps DROP COLUMN rate_burst;
ALTER TABLE apps DROP COLUMN rate_milli;
ALTER TABLE apps DROP COLUMN event_types;
ALTER TABLE apps DROP COLUMN broadcast_rate;
ALTER TABLE apps DROP COLUMN registration;

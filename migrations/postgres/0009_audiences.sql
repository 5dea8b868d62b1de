-- +goose NO TRANSACTION
-- +goose Up
-- As 0006: each statement by itself, and each may be done again.
-- +goose StatementBegin
DO $$ BEGIN
  SET LOCAL lock_timeout = '500ms';
  ALTER TABLE apps
    ADD COLUMN IF NOT EXISTS registration TEXT NOT NULL DEFAULT 'open',
    ADD COLUMN IF NOT EXISTS broadcast_rate BIGINT NOT NULL DEFAULT 2000, -- devices a second that its fan-outs reach
    ADD COLUMN IF NOT EXISTS event_types TEXT, -- words with a space between; NULL is all
    ADD COLUMN IF NOT EXISTS rate_milli BIGINT NOT NULL DEFAULT 0, -- calls in 1000 s; 0 is no limit
    ADD COLUMN IF NOT EXISTS rate_burst BIGINT NOT NULL DEFAULT 0;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
DO $$ BEGIN
  SET LOCAL lock_timeout = '500ms';
  ALTER TABLE keys
    ADD COLUMN IF NOT EXISTS last_used_at BIGINT,
    ADD COLUMN IF NOT EXISTS rate_milli BIGINT NOT NULL DEFAULT 0, -- calls in 1000 s; 0 is no limit
    ADD COLUMN IF NOT EXISTS rate_burst BIGINT NOT NULL DEFAULT 0;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
DO $$ BEGIN
  SET LOCAL lock_timeout = '500ms';
  ALTER TABLE messages
    ADD COLUMN IF NOT EXISTS audience TEXT NOT NULL DEFAULT 'user', -- what user_id names: user, device, topic, or all for a broadcast
    ADD COLUMN IF NOT EXISTS send_at BIGINT, -- when it was scheduled for
    ADD COLUMN IF NOT EXISTS due_at BIGINT, -- a page of it is to be stored then, or, canceled, to be taken back; NULL when nothing is
    ADD COLUMN IF NOT EXISTS fan_cursor TEXT, -- the device up to which it is stored, or taken back; NULL before the first page
    ADD COLUMN IF NOT EXISTS notification TEXT, -- JSON, while due_at is set
    ADD COLUMN IF NOT EXISTS acked BIGINT NOT NULL DEFAULT 0, -- deliveries that ended so, as all below
    ADD COLUMN IF NOT EXISTS expired BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS replaced BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS canceled BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS dropped BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS displayed BIGINT NOT NULL DEFAULT 0, -- devices that reported so, as the two below
    ADD COLUMN IF NOT EXISTS opened BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS dismissed BIGINT NOT NULL DEFAULT 0;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
DO $$ BEGIN
  SET LOCAL lock_timeout = '500ms';
  ALTER TABLE deliveries
    ADD COLUMN IF NOT EXISTS displayed_at BIGINT, -- by the device's report, as the two below
    ADD COLUMN IF NOT EXISTS opened_at BIGINT,
    ADD COLUMN IF NOT EXISTS dismissed_at BIGINT;
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
DO $$ BEGIN
  SET LOCAL lock_timeout = '500ms';
  ALTER TABLE events
    ADD COLUMN IF NOT EXISTS count BIGINT NOT NULL DEFAULT 0; -- of a row that holds several events as a JSON array in data; 0 is one event by itself
END $$;
-- +goose StatementEnd

-- What is scheduled, or being stored.
DROP INDEX CONCURRENTLY IF EXISTS messages_due;
CREATE INDEX CONCURRENTLY messages_due ON messages (app, due_at) WHERE due_at IS NOT NULL;
-- Sends to one audience.
DROP INDEX CONCURRENTLY IF EXISTS messages_user;
CREATE INDEX CONCURRENTLY messages_user ON messages (app, audience, user_id, id) WHERE user_id <> '';
DROP INDEX CONCURRENTLY IF EXISTS messages_correlation;
CREATE INDEX CONCURRENTLY messages_correlation ON messages (app, correlation_id, id) WHERE correlation_id IS NOT NULL;
-- What was sent to one user, to be listed and to be erased.
DROP INDEX CONCURRENTLY IF EXISTS deliveries_user;
CREATE INDEX CONCURRENTLY deliveries_user ON deliveries (app, to_user, message) WHERE to_user IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS deliveries_correlation;
CREATE INDEX CONCURRENTLY deliveries_correlation ON deliveries (app, correlation_id, message) WHERE correlation_id IS NOT NULL;

-- Topics that have, or had, a subscriber.
CREATE TABLE IF NOT EXISTS topics (
  app        TEXT   COLLATE "C" NOT NULL,
  name       TEXT   COLLATE "C" NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (app, name)
);

-- A device's subscriptions. via is '' for its own, else the user it has it from: it goes when the device is no longer that user's.
CREATE TABLE IF NOT EXISTS subscriptions (
  device     TEXT   COLLATE "C" NOT NULL,
  topic      TEXT   COLLATE "C" NOT NULL,
  via        TEXT   COLLATE "C" NOT NULL,
  app        TEXT   COLLATE "C" NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (device, topic, via)
);
CREATE INDEX IF NOT EXISTS subscriptions_topic ON subscriptions (app, topic, device);

-- What a user is subscribed to, with whatever devices.
CREATE TABLE IF NOT EXISTS user_topics (
  app        TEXT   COLLATE "C" NOT NULL,
  user_id    TEXT   COLLATE "C" NOT NULL,
  topic      TEXT   COLLATE "C" NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (app, user_id, topic)
);
CREATE INDEX IF NOT EXISTS user_topics_topic ON user_topics (app, topic, user_id);

-- What user tokens are checked with.
CREATE TABLE IF NOT EXISTS identity_keys (
  app         TEXT   COLLATE "C" NOT NULL,
  kid         TEXT   COLLATE "C" NOT NULL,
  algorithm   TEXT   NOT NULL,
  fingerprint TEXT   NOT NULL,
  material    BYTEA   NOT NULL, -- a public key in PEM, or a secret; sealed for "identity:app:kid"
  created_at  BIGINT NOT NULL,
  PRIMARY KEY (app, kid)
);

-- Where events are posted. place is that of the last event that was taken, or lies in webhook_retries.
CREATE TABLE IF NOT EXISTS webhooks (
  id              TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
  app             TEXT   COLLATE "C" NOT NULL,
  url             TEXT   NOT NULL,
  event_types     TEXT   NOT NULL, -- words with a space between
  description     TEXT   NOT NULL,
  secret          BYTEA   NOT NULL, -- sealed for "webhook:id", as is the next
  secret_previous BYTEA,
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
CREATE INDEX IF NOT EXISTS webhooks_app ON webhooks (app, id);

-- Single events that a webhook has not taken while it took others, and those of the same device behind them.
CREATE TABLE IF NOT EXISTS webhook_retries (
  webhook    TEXT   COLLATE "C" NOT NULL,
  place      BIGINT NOT NULL, -- the event's
  device     TEXT   COLLATE "C" NOT NULL, -- whose order it keeps; '' for none
  attempts   BIGINT NOT NULL,
  first_at   BIGINT NOT NULL,
  next_at    BIGINT NOT NULL,
  last_error TEXT   NOT NULL,
  PRIMARY KEY (webhook, place)
);

-- +goose Down
DROP TABLE IF EXISTS webhook_retries;
DROP TABLE IF EXISTS webhooks;
DROP TABLE IF EXISTS identity_keys;
DROP TABLE IF EXISTS user_topics;
DROP TABLE IF EXISTS subscriptions;
DROP TABLE IF EXISTS topics;
DROP INDEX IF EXISTS deliveries_correlation;
DROP INDEX IF EXISTS deliveries_user;
DROP INDEX IF EXISTS messages_correlation;
DROP INDEX IF EXISTS messages_user;
DROP INDEX IF EXISTS messages_due;
ALTER TABLE events DROP COLUMN IF EXISTS count;
ALTER TABLE deliveries DROP COLUMN IF EXISTS dismissed_at;
ALTER TABLE deliveries DROP COLUMN IF EXISTS opened_at;
ALTER TABLE deliveries DROP COLUMN IF EXISTS displayed_at;
ALTER TABLE messages DROP COLUMN IF EXISTS dismissed;
ALTER TABLE messages DROP COLUMN IF EXISTS opened;
ALTER TABLE messages DROP COLUMN IF EXISTS displayed;
ALTER TABLE messages DROP COLUMN IF EXISTS dropped;
ALTER TABLE messages DROP COLUMN IF EXISTS canceled;
ALTER TABLE messages DROP COLUMN IF EXISTS replaced;
ALTER TABLE messages DROP COLUMN IF EXISTS expired;
ALTER TABLE messages DROP COLUMN IF EXISTS acked;
ALTER TABLE messages DROP COLUMN IF EXISTS notification;
ALTER TABLE messages DROP COLUMN IF EXISTS fan_cursor;
ALTER TABLE messages DROP COLUMN IF EXISTS due_at;
ALTER TABLE messages DROP COLUMN IF EXISTS send_at;
ALTER TABLE messages DROP COLUMN IF EXISTS audience;
ALTER TABLE keys DROP COLUMN IF EXISTS rate_burst;
ALTER TABLE keys DROP COLUMN IF EXISTS rate_milli;
ALTER TABLE keys DROP COLUMN IF EXISTS last_used_at;
ALTER TABLE apps DROP COLUMN IF EXISTS rate_burst;
ALTER TABLE apps DROP COLUMN IF EXISTS rate_milli;
ALTER TABLE apps DROP COLUMN IF EXISTS event_types;
ALTER TABLE apps DROP COLUMN IF EXISTS broadcast_rate;
ALTER TABLE apps DROP COLUMN IF EXISTS registration;

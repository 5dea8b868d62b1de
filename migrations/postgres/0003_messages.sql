-- +goose Up
-- Places in inboxes come from here: no place is given twice, whatever is deleted or rolled back.
CREATE SEQUENCE places AS BIGINT;

-- What a writer touches to learn whether it can write.
CREATE TABLE counters (
  name  TEXT   NOT NULL PRIMARY KEY,
  value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('seq', 0);

-- A send to one device lives here alone, its body included.
CREATE TABLE deliveries (
  device         TEXT   COLLATE "C" NOT NULL,
  seq            BIGINT NOT NULL,
  app            TEXT   COLLATE "C" NOT NULL,
  message        TEXT   COLLATE "C" NOT NULL,
  class          BIGINT NOT NULL,
  urgency        BIGINT NOT NULL,
  size           BIGINT NOT NULL, -- bytes of the data, kept when the body is dropped
  attempts       BIGINT NOT NULL DEFAULT 0,
  created_at     BIGINT NOT NULL,
  expires_at     BIGINT NOT NULL,
  fetched_at     BIGINT,
  ended_at       BIGINT,          -- NULL while pending
  ended          TEXT,            -- the final state
  reason         TEXT,            -- why, where the state alone does not say
  shared         BIGINT NOT NULL, -- 1: the body lies in messages
  collapse_key   TEXT   COLLATE "C",
  to_user        TEXT,            -- the user it was sent to, if it was
  correlation_id TEXT,
  notification   TEXT,            -- JSON, dropped with the body
  body           BYTEA,
  PRIMARY KEY (device, seq)
);
CREATE INDEX deliveries_seq ON deliveries (seq); -- for sweeps, which go through all devices
CREATE INDEX deliveries_pending ON deliveries (device, seq) WHERE ended_at IS NULL;
CREATE INDEX deliveries_message ON deliveries (message, device);
CREATE INDEX deliveries_collapse ON deliveries (device, collapse_key) WHERE ended_at IS NULL AND collapse_key IS NOT NULL;
CREATE INDEX deliveries_life ON deliveries (expires_at) WHERE ended_at IS NULL;

-- A send to a user with no device, or with several.
CREATE TABLE messages (
  id             TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
  app            TEXT   COLLATE "C" NOT NULL,
  user_id        TEXT   NOT NULL,
  urgency        BIGINT NOT NULL,
  recipients     BIGINT NOT NULL,
  pending        BIGINT NOT NULL, -- deliveries that still need the body
  created_at     BIGINT NOT NULL,
  expires_at     BIGINT NOT NULL,
  canceled_at    BIGINT,
  collapse_key   TEXT,
  correlation_id TEXT,
  body           BYTEA
);
CREATE INDEX messages_app ON messages (app, id);
CREATE INDEX messages_age ON messages (created_at);

-- What was lost un-acked: one row a device, until it was told and acked past it.
CREATE TABLE gaps (
  device   TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
  from_seq BIGINT NOT NULL,
  to_seq   BIGINT NOT NULL,
  lost     BIGINT NOT NULL,
  told     BIGINT NOT NULL DEFAULT 0, -- of lost, how many the device has been told of
  reason   TEXT   NOT NULL
);

CREATE TABLE idempotency (
  app        TEXT   COLLATE "C" NOT NULL,
  key        TEXT   COLLATE "C" NOT NULL,
  request    BYTEA  NOT NULL, -- SHA-256 of what was asked
  receipt    TEXT   NOT NULL, -- JSON
  created_at BIGINT NOT NULL,
  PRIMARY KEY (app, key)
);
CREATE INDEX idempotency_age ON idempotency (created_at);

-- +goose Down
DROP TABLE idempotency;
DROP TABLE gaps;
DROP TABLE messages;
DROP TABLE deliveries;
DROP TABLE counters;
DROP SEQUENCE places;

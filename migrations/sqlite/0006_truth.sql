-- +goose Up
-- Circuits that are not closed, as the worker last knew them: a start begins with what it finds here.
CREATE TABLE circuits (
  app         TEXT   NOT NULL,
  provider    TEXT   NOT NULL,
  environment TEXT   NOT NULL,
  onward      TEXT   NOT NULL,
  state       TEXT   NOT NULL,
  cause       TEXT   NOT NULL,
  reason      TEXT   NOT NULL,
  opened_at   BIGINT NOT NULL,
  retry_at    BIGINT NOT NULL,
  pauses      BIGINT NOT NULL,
  PRIMARY KEY (app, provider, environment, onward, cause)
) WITHOUT ROWID;

-- What an app's backend should know, written with the change it tells of.
CREATE TABLE events (
  seq        INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice, so that a cursor stays good
  id         TEXT   NOT NULL,
  app        TEXT   NOT NULL,
  type       TEXT   NOT NULL,
  created_at BIGINT NOT NULL,
  data       BLOB   NOT NULL -- JSON
);
CREATE INDEX events_app ON events (app, seq);
CREATE INDEX events_age ON events (created_at);

-- Whether a credential works is told by its circuits.
ALTER TABLE credentials DROP COLUMN failing;
ALTER TABLE credentials DROP COLUMN failing_since;
ALTER TABLE credentials ADD COLUMN expires_at BIGINT;
ALTER TABLE credentials ADD COLUMN expiry_told BIGINT; -- the step, of 30, 7, 1 and 0 days left, that an event last told of
CREATE INDEX credentials_expiry ON credentials (expires_at) WHERE expires_at IS NOT NULL;

ALTER TABLE devices ADD COLUMN strikes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN struck_at BIGINT;
ALTER TABLE devices ADD COLUMN other_tried BIGINT NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN demotions BIGINT NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN demoted_at BIGINT;
-- The latest deaths of an app's tokens, to be taken back if they were too many to be true.
CREATE INDEX devices_died ON devices (app, provider, struck_at) WHERE token_state = 'dead';
-- Nobody counted how often these were refused: the count begins anew.
UPDATE devices SET token_state = 'active', token_reason = '' WHERE token_state = 'suspect';

-- +goose Down
DROP INDEX devices_died;
ALTER TABLE devices DROP COLUMN demoted_at;
ALTER TABLE devices DROP COLUMN demotions;
ALTER TABLE devices DROP COLUMN other_tried;
ALTER TABLE devices DROP COLUMN struck_at;
ALTER TABLE devices DROP COLUMN strikes;
DROP INDEX credentials_expiry;
ALTER TABLE credentials DROP COLUMN expiry_told;
ALTER TABLE credentials DROP COLUMN expires_at;
ALTER TABLE credentials ADD COLUMN failing TEXT NOT NULL DEFAULT '';
ALTER TABLE credentials ADD COLUMN failing_since BIGINT;
DROP TABLE events;
DROP TABLE circuits;

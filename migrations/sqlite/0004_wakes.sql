-- +goose Up
-- Pushes, for timelines. A device's are found from inboxes.last_wake on, each naming the one before: an index would dirty
-- a page for every wake.
CREATE TABLE wakes (
  id          INTEGER PRIMARY KEY,
  previous    BIGINT NOT NULL, -- the device's wake before this, 0 for none; it may be purged
  device      TEXT   NOT NULL,
  at          BIGINT NOT NULL,
  head_normal BIGINT NOT NULL,
  head_high   BIGINT NOT NULL,
  accepted    BIGINT NOT NULL,
  background  BIGINT NOT NULL,
  took        BIGINT NOT NULL, -- microseconds
  provider    TEXT   NOT NULL,
  verdict     TEXT   NOT NULL,
  reason      TEXT   NOT NULL
);

-- How far each sweep has come.
CREATE TABLE sweeps (
  name TEXT   NOT NULL PRIMARY KEY,
  seq  BIGINT NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE sweeps;
DROP TABLE wakes;

-- +goose Up
CREATE TABLE wakes (
  id          INTEGER PRIMARY KEY,
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
CREATE INDEX wakes_device ON wakes (device, at);

-- How far each sweep has come.
CREATE TABLE sweeps (
  name TEXT   NOT NULL PRIMARY KEY,
  seq  BIGINT NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE sweeps;
DROP TABLE wakes;

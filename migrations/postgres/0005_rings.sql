-- +goose Up
-- A word sealed with each master key that ever sealed here: what does not open says at the start, and not to a phone,
-- that a key is missing.
CREATE TABLE rings (
  id     TEXT  COLLATE "C" NOT NULL PRIMARY KEY, -- the master key's id
  sealed BYTEA NOT NULL                          -- sealed for "ring:id"
);

-- +goose Down
DROP TABLE rings;

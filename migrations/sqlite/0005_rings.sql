-- +goose Up
-- A word sealed with each master key that ever sealed here: what does not open says at the start, and not to a phone,
-- that a key is missing.
CREATE TABLE rings (
  id     TEXT NOT NULL PRIMARY KEY, -- the master key's id
  sealed BLOB NOT NULL              -- sealed for "ring:id"
) WITHOUT ROWID;

-- +goose Down
DROP TABLE rings;

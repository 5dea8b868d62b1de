-- +goose Up
-- How far a copy from another database into this one has come: a row for each table, and one for the whole, whose part is ''.
-- A page of rows and its row here are one commit. While the whole is not done, no node runs on this database.
CREATE TABLE copies (
  part     TEXT   COLLATE "C" PRIMARY KEY,
  source   TEXT   NOT NULL, -- tells the database that is copied, as it was when that began, from all others
  last_key TEXT   NOT NULL, -- JSON: the key of the last row that is here
  copied   BIGINT NOT NULL, -- rows
  done_at  BIGINT           -- NULL while under way
);

-- +goose Down
DROP TABLE copies;

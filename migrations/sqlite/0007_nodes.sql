-- +goose Up
-- Nodes that share this database. A node writes its row every few seconds; one whose row is older than its life counts as dead.
-- Times are milliseconds of the database's clock, which is one, where those of the nodes are many.
CREATE TABLE nodes (
  id        TEXT PRIMARY KEY,
  joined_at BIGINT NOT NULL, -- when it came, or came back after it had counted as dead
  beat_at   BIGINT NOT NULL
);

-- Duties that one node does at a time.
CREATE TABLE leases (
  name  TEXT PRIMARY KEY,
  node  TEXT NOT NULL,
  term  BIGINT NOT NULL, -- grows whenever the lease changes hands
  until BIGINT NOT NULL  -- database's clock; anyone may take it after that
);

-- +goose Down
DROP TABLE leases;
DROP TABLE nodes;

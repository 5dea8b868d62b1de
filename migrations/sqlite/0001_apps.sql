-- +goose Up
-- Times are BIGINT unix milliseconds, ids are made by the application.
CREATE TABLE apps (
  id             TEXT   NOT NULL PRIMARY KEY,
  name           TEXT   NOT NULL,
  inbox_overflow TEXT   NOT NULL,
  created_at     BIGINT NOT NULL,
  deleting       BIGINT NOT NULL DEFAULT 0 -- 1 while the app's rows are being removed piece by piece
);

CREATE TABLE keys (
  id         TEXT   NOT NULL PRIMARY KEY,
  app        TEXT   NOT NULL,
  kind       TEXT   NOT NULL,
  name       TEXT   NOT NULL,
  scopes     TEXT   NOT NULL, -- words with a space between
  hash       BLOB   NOT NULL, -- SHA-256 of the key
  expires_at BIGINT,
  created_at BIGINT NOT NULL
);
CREATE INDEX keys_app ON keys (app, id);

CREATE TABLE credentials (
  app           TEXT   NOT NULL,
  provider      TEXT   NOT NULL,
  fingerprint   TEXT   NOT NULL,
  public        BLOB   NOT NULL, -- JSON
  secret        BLOB   NOT NULL, -- JSON, sealed for "credential:app:provider"
  updated_at    BIGINT NOT NULL,
  failing       TEXT   NOT NULL DEFAULT '',
  failing_since BIGINT,
  PRIMARY KEY (app, provider)
);

-- +goose Down
DROP TABLE credentials;
DROP TABLE keys;
DROP TABLE apps;

-- +goose Up
-- Times are BIGINT unix milliseconds, ids are made by the application. Names sort by their bytes, as they do in Go.
CREATE TABLE apps (
  id             TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
  name           TEXT   NOT NULL,
  inbox_overflow TEXT   NOT NULL,
  created_at     BIGINT NOT NULL,
  deleting       BIGINT NOT NULL DEFAULT 0 -- 1 while the app's rows are being removed piece by piece
);

CREATE TABLE keys (
  id         TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
  app        TEXT   COLLATE "C" NOT NULL,
  kind       TEXT   NOT NULL,
  name       TEXT   NOT NULL,
  scopes     TEXT   NOT NULL, -- words with a space between
  hash       BYTEA  NOT NULL, -- SHA-256 of the key
  expires_at BIGINT,
  created_at BIGINT NOT NULL
);
CREATE INDEX keys_app ON keys (app, id);

CREATE TABLE credentials (
  app           TEXT   COLLATE "C" NOT NULL,
  provider      TEXT   COLLATE "C" NOT NULL,
  fingerprint   TEXT   NOT NULL,
  public        BYTEA  NOT NULL, -- JSON
  secret        BYTEA  NOT NULL, -- JSON, sealed for "credential:app:provider"
  updated_at    BIGINT NOT NULL,
  PRIMARY KEY (app, provider)
);

-- +goose Down
DROP TABLE credentials;
DROP TABLE keys;
DROP TABLE apps;

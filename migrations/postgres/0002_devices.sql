-- +goose Up
CREATE TABLE devices (
  id              TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
  app             TEXT   COLLATE "C" NOT NULL,
  installation    TEXT   COLLATE "C" NOT NULL,
  platform        TEXT   NOT NULL,
  provider        TEXT   COLLATE "C" NOT NULL,
  environment     TEXT   COLLATE "C" NOT NULL,
  token_state     TEXT   NOT NULL,
  token_reason    TEXT   NOT NULL DEFAULT '',
  generation      BIGINT NOT NULL DEFAULT 0,
  registered_at   BIGINT,
  user_id         TEXT   COLLATE "C" NOT NULL DEFAULT '',
  app_version     TEXT   NOT NULL DEFAULT '',
  locale          TEXT   NOT NULL DEFAULT '',
  created_at      BIGINT NOT NULL,
  unregistered_at BIGINT,
  secret          BYTEA  NOT NULL, -- SHA-256 of the device's key
  secret_previous BYTEA,           -- works until the new one is first used
  token_hash      BYTEA,           -- SHA-256 over app, provider, environment and token
  token           BYTEA            -- sealed for "token:device"
);
CREATE UNIQUE INDEX devices_installation ON devices (app, installation) WHERE unregistered_at IS NULL;
CREATE UNIQUE INDEX devices_token ON devices (token_hash) WHERE token_hash IS NOT NULL;
CREATE INDEX devices_user ON devices (app, user_id, id) WHERE user_id <> '';
CREATE INDEX devices_app ON devices (app, id);

-- What accepting, acking and waking touch of a device. Each page has room left, and no second index stands in the way: a row is
-- changed where it lies.
CREATE TABLE inboxes (
  device        TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
  app           TEXT   COLLATE "C" NOT NULL,
  gone_at       BIGINT,                    -- the device was unregistered
  pending       BIGINT NOT NULL DEFAULT 0, -- un-acked deliveries, exactly
  pending_bytes BIGINT NOT NULL DEFAULT 0, -- and the bytes of their data
  head          BIGINT NOT NULL DEFAULT 0, -- newest place ever given here
  seen          BIGINT NOT NULL DEFAULT 0, -- newest place handed to the device
  woken_normal  BIGINT NOT NULL DEFAULT 0, -- newest places an accepted wake stood for
  woken_high    BIGINT NOT NULL DEFAULT 0,
  woken_at      BIGINT,
  background_at BIGINT,
  unanswered    BIGINT NOT NULL DEFAULT 0, -- wakes accepted since a page was handed out
  last_wake     BIGINT NOT NULL DEFAULT 0, -- the newest row in wakes
  contact_at    BIGINT NOT NULL
) WITH (fillfactor = 70);

-- +goose Down
DROP TABLE inboxes;
DROP TABLE devices;

-- One row for each tree that has a state or events. `epoch` is drawn anew each time that a tree is created: with the version it
-- names a state. `workflow` is NULL if there are only events (of a tree whose state is stored elsewhere, or deleted). `inbox` is
-- the last message that was taken. `log` counts the bytes of all its commits; the states that have changed are written when it
-- reaches `due`, and were last as of version `flushed`.
CREATE TABLE trees (
    key INTEGER PRIMARY KEY CHECK (key BETWEEN 1 AND 2147483647),
    id TEXT NOT NULL UNIQUE,
    epoch INTEGER NOT NULL,
    version INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    workflow TEXT,
    status TEXT NOT NULL,
    owes INTEGER NOT NULL,
    children INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    next_event INTEGER NOT NULL,
    inbox INTEGER NOT NULL,
    log INTEGER NOT NULL,
    flushed INTEGER NOT NULL,
    due INTEGER NOT NULL
) STRICT;

-- They name no column that every commit sets: else every commit would write to all of them.
CREATE INDEX trees_newest ON trees (created_at, id, workflow) WHERE workflow IS NOT NULL;
CREATE INDEX trees_status ON trees (status, created_at, id, workflow) WHERE workflow IS NOT NULL;
-- Those that don't run and have something to do all the same: hardly ever one.
CREATE INDEX trees_owing ON trees (created_at, id) WHERE owes = 1 AND status <> 'running';

-- The keys of these four are made of the tree's and of a number: version, version, the number of the first event, the place in
-- the inbox.
CREATE TABLE log (
    place INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    first_event INTEGER NOT NULL,
    events INTEGER NOT NULL,
    changes TEXT NOT NULL
) STRICT;

-- What the executions of a tree share, as of a version, and how many they are. It is written after their states.
CREATE TABLE heads (
    place INTEGER PRIMARY KEY,
    executions INTEGER NOT NULL,
    head TEXT NOT NULL
) STRICT;

-- What was stored together is one row: a list of [number, microseconds, path of the execution, event].
CREATE TABLE telemetry (
    place INTEGER PRIMARY KEY,
    events TEXT NOT NULL
) STRICT;

-- Of messages that were taken, the ids only.
CREATE TABLE inbox (
    place INTEGER PRIMARY KEY,
    tree INTEGER NOT NULL,
    id TEXT NOT NULL,
    message TEXT
) STRICT;

CREATE UNIQUE INDEX inbox_ids ON inbox (tree, id);
-- Hardly ever one: those that were not taken.
CREATE INDEX inbox_waiting ON inbox (tree) WHERE message IS NOT NULL;

-- The states of executions as of versions. One that isn't there as of a version hasn't changed since the one before.
CREATE TABLE states (
    row INTEGER PRIMARY KEY,
    tree INTEGER NOT NULL,
    number INTEGER NOT NULL,
    version INTEGER NOT NULL,
    state TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX states_executions ON states (tree, number, version);

-- Trees of an earlier format that could not be converted. Their rows are in the tables whose names begin with `old_`.
CREATE TABLE damaged (
    id TEXT PRIMARY KEY,
    problem TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Identities and context schema are parts of the state: these are for those who read them without it.
CREATE TABLE shared (
    main TEXT PRIMARY KEY,
    identities TEXT NOT NULL,
    schemas TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO shared (main, identities, schemas)
    SELECT main, identities, schemas FROM definitions AS d
    WHERE number = (SELECT max(number) FROM definitions WHERE main = d.main) AND (identities <> '{}' OR schemas <> '{}');
DROP TABLE definitions;

-- Turns were of commits of executions: what is older than this schema is where its time says.
UPDATE turns SET place = NULL WHERE place IS NOT NULL;

-- Their indexes go with the tables, or would keep their names.
DROP INDEX executions_newest;
DROP INDEX executions_status;
DROP INDEX executions_tree;
DROP INDEX executions_descending;
ALTER TABLE executions RENAME TO old_executions;
ALTER TABLE commits RENAME TO old_commits;
ALTER TABLE checkpoints RENAME TO old_checkpoints;
ALTER TABLE events RENAME TO old_events;

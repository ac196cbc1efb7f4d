-- One row for each execution that has a state or events. `epoch` is drawn anew each time that an execution is created: with
-- the version it names a state. `main` is empty if there are only events (of an execution whose state is stored elsewhere, or
-- deleted). `log` counts the bytes of all its commits, `covered` those that the newest checkpoint spares a reader; the next
-- checkpoint is due when `log` reaches `due`.
CREATE TABLE executions (
    key INTEGER PRIMARY KEY CHECK (key BETWEEN 1 AND 2147483647),
    id TEXT NOT NULL UNIQUE,
    epoch INTEGER NOT NULL,
    version INTEGER NOT NULL,
    main TEXT NOT NULL,
    workflow TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    next_event INTEGER NOT NULL,
    log INTEGER NOT NULL,
    covered INTEGER NOT NULL,
    due INTEGER NOT NULL
) STRICT;

-- Their conditions name no column that every commit sets: else every commit would write to all of them.
CREATE INDEX executions_newest ON executions (created_at, id) WHERE main <> '';
CREATE INDEX executions_status ON executions (status, created_at, id) WHERE main <> '';
CREATE INDEX executions_tree ON executions (main, created_at, id) WHERE main <> '' AND main <> id;

-- Their keys are made of the execution's and of a number: version, version, and the number of the first event.
CREATE TABLE commits (
    place INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    first_event INTEGER NOT NULL,
    events INTEGER NOT NULL,
    changes TEXT NOT NULL
) STRICT;

CREATE TABLE checkpoints (
    place INTEGER PRIMARY KEY,
    state TEXT NOT NULL
) STRICT;

-- What was stored together is one row: a list of [number, microseconds, event].
CREATE TABLE events (
    place INTEGER PRIMARY KEY,
    events TEXT NOT NULL
) STRICT;

CREATE TABLE registries (
    id TEXT NOT NULL UNIQUE,
    workflows TEXT NOT NULL
) STRICT;

-- What the executions of a tree share.
CREATE TABLE trees (
    main TEXT NOT NULL UNIQUE,
    identities TEXT NOT NULL,
    schemas TEXT NOT NULL
) STRICT;

CREATE TABLE turns (
    number INTEGER PRIMARY KEY,
    main TEXT NOT NULL,
    key TEXT,
    role TEXT NOT NULL,
    tool_name TEXT,
    content TEXT NOT NULL
) STRICT;

CREATE INDEX turns_tree ON turns (main, number);
CREATE UNIQUE INDEX turns_key ON turns (main, key) WHERE key IS NOT NULL;

CREATE TABLE leases (
    owner TEXT PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

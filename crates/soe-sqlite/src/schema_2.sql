-- What a tree shares keeps its past, so that a fork of an earlier version finds what was shared then. `place` is the commit
-- that brought it, in the table `commits`; NULL if an application did, or the commit was made by version 1 of this schema.
-- What is older than this version counts as having always been there.
CREATE TABLE definitions (
    number INTEGER PRIMARY KEY,
    main TEXT NOT NULL,
    at INTEGER NOT NULL,
    place INTEGER,
    identities TEXT NOT NULL,
    schemas TEXT NOT NULL
) STRICT;

CREATE INDEX definitions_tree ON definitions (main, number);

INSERT INTO definitions (main, at, identities, schemas) SELECT main, 0, identities, schemas FROM trees;
DROP TABLE trees;

-- `until` is when an application replaced the history that the turn is of; NULL as long as it is the present one.
ALTER TABLE turns ADD COLUMN at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE turns ADD COLUMN place INTEGER;
ALTER TABLE turns ADD COLUMN until INTEGER;

DROP INDEX turns_key;
CREATE UNIQUE INDEX turns_key ON turns (main, key) WHERE key IS NOT NULL AND until IS NULL;

-- Executions whose end has still to go down to their children.
ALTER TABLE executions ADD COLUMN descending INTEGER NOT NULL DEFAULT 0;
CREATE INDEX executions_descending ON executions (created_at, id) WHERE main <> '' AND descending = 1 AND status <> 'running';

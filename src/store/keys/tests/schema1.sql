-- As the release before made it.
CREATE TABLE IF NOT EXISTS idempotency (
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    route TEXT NOT NULL,
    print BLOB NOT NULL CHECK (length(print) = 16),
    owner TEXT NOT NULL,
    state INTEGER NOT NULL,
    until INTEGER NOT NULL,
    answer BLOB
) STRICT;
CREATE INDEX IF NOT EXISTS idempotency_until ON idempotency (until, route);
PRAGMA application_id = 1413958449;
PRAGMA user_version = 1;

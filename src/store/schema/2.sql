-- Pins: which version holds which player or round. They are no changes of the state and have no entries.
CREATE TABLE pin (
    service TEXT NOT NULL,
    key BLOB NOT NULL CHECK (length(key) = 16),
    version TEXT NOT NULL,
    began INTEGER NOT NULL,
    PRIMARY KEY (service, key)
) STRICT, WITHOUT ROWID;

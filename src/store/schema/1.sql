-- The journal. `line` is what `hash` is computed of; the other columns are copies of parts of it, for queries.
CREATE TABLE entry (
    seq INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    kind TEXT NOT NULL,
    service TEXT,
    actor TEXT NOT NULL,
    line TEXT NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE INDEX entry_at ON entry (at);
CREATE INDEX entry_service ON entry (service, seq);
CREATE INDEX entry_kind ON entry (kind, seq);

CREATE TRIGGER entry_is_next BEFORE INSERT ON entry
WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM entry)
BEGIN SELECT RAISE(ABORT, 'an entry of the journal is never inserted before its end'); END;
CREATE TRIGGER entry_is_kept BEFORE DELETE ON entry
BEGIN SELECT RAISE(ABORT, 'an entry of the journal is never deleted'); END;
CREATE TRIGGER entry_is_final BEFORE UPDATE ON entry
BEGIN SELECT RAISE(ABORT, 'an entry of the journal is never changed'); END;

-- What the entries lead to, by key; `seq` is the entry that brought the value.
CREATE TABLE state (
    key TEXT PRIMARY KEY,
    seq INTEGER NOT NULL REFERENCES entry (seq),
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Signed heads; `seq` is the entry that is the head.
CREATE TABLE checkpoint (
    id INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL REFERENCES entry (seq),
    note TEXT NOT NULL
) STRICT;
CREATE TRIGGER checkpoint_is_kept BEFORE DELETE ON checkpoint
BEGIN SELECT RAISE(ABORT, 'a checkpoint is never deleted'); END;
CREATE TRIGGER checkpoint_is_final BEFORE UPDATE ON checkpoint
BEGIN SELECT RAISE(ABORT, 'a checkpoint is never changed'); END;

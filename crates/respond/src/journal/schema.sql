-- The journal of one endpoint. `effect` has one row per order ever accepted (until pruned); its state is written
-- before each step, so that a killed process finds here everything it may have done.
CREATE TABLE IF NOT EXISTS effect (
    id         INTEGER PRIMARY KEY,
    order_id   TEXT    NOT NULL UNIQUE,
    order_json TEXT    NOT NULL,           -- without its alert
    program    TEXT    NOT NULL,           -- path relative to the home
    kind       TEXT    NOT NULL,           -- action | script
    state      TEXT    NOT NULL,           -- accepted | applying | active | reverting | closed
    key        TEXT,                       -- base name and keys joined by '-', once known
    boot_id    TEXT,                       -- boot that until_boot counts in
    until_boot INTEGER,                    -- nanoseconds of the boot-time clock; NULL = no end
    until_wall INTEGER,                    -- the same moment by the wall clock, for another boot
    length     INTEGER NOT NULL DEFAULT 0, -- effective seconds
    attempts   INTEGER NOT NULL DEFAULT 0, -- reverts tried
    failed     INTEGER NOT NULL DEFAULT 0, -- the apply failed; reverting only cleans up
    prior      TEXT,                       -- what an action found before it changed anything
    outcome    TEXT,                       -- JSON of the last outcome reported
    changed    INTEGER NOT NULL,           -- wall clock of the last step
    size       INTEGER NOT NULL DEFAULT 0  -- bytes of a closed row's texts
) STRICT;

-- The alert of each effect that is not closed: scripts and log lines need it again at the undo, nobody later.
CREATE TABLE IF NOT EXISTS alert (
    id   INTEGER PRIMARY KEY,              -- of the effect
    text TEXT    NOT NULL
) STRICT;

-- Outcomes of a manager's orders that it has not confirmed.
CREATE TABLE IF NOT EXISTS untold (
    order_id TEXT NOT NULL,
    kind     TEXT NOT NULL,
    outcome  TEXT NOT NULL,                -- JSON
    PRIMARY KEY (order_id, kind)
) STRICT;

-- Finished blocks per key, for repeated_offenders.
CREATE TABLE IF NOT EXISTS offender (
    key     TEXT    PRIMARY KEY,
    count   INTEGER NOT NULL,
    ended   INTEGER NOT NULL, -- wall clock nanoseconds of the last end
    length  INTEGER NOT NULL  -- seconds of the last block
) STRICT;
CREATE INDEX IF NOT EXISTS offender_ended ON offender (ended);

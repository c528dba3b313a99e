-- The manager's ledger. `draft` has one row for each answer to an alert (or order by hand); `orders` one for each endpoint that
-- it was meant for, stored before it is sent, until it is pruned long after its end.
CREATE TABLE IF NOT EXISTS draft (
    id       INTEGER PRIMARY KEY,
    text     TEXT    NOT NULL,           -- JSON: the order without its endpoint, and for whom it is
    standing INTEGER                     -- until then agents that come back get it too; NULL = not for all
) STRICT;
CREATE INDEX IF NOT EXISTS draft_standing ON draft (standing) WHERE standing IS NOT NULL;
CREATE TABLE IF NOT EXISTS orders (
    id        INTEGER PRIMARY KEY,
    order_id  TEXT    NOT NULL UNIQUE,
    draft     INTEGER NOT NULL REFERENCES draft (id),
    agent     INTEGER NOT NULL,
    state     TEXT    NOT NULL,          -- stored | sent | received | active | closed
    deadline  INTEGER NOT NULL,          -- wall clock nanoseconds: not applied later than that
    ends      INTEGER,                   -- end of the effect, once it is in place
    plain     INTEGER NOT NULL,          -- sent to a peer that confirms nothing
    withdrawn INTEGER NOT NULL,          -- an operator took it back
    created   INTEGER NOT NULL,
    changed   INTEGER NOT NULL,
    outcome   TEXT,                      -- JSON: what became of it
    ending    TEXT                       -- JSON: how its effect ended
) STRICT;
CREATE INDEX IF NOT EXISTS orders_open ON orders (agent) WHERE state <> 'closed';
CREATE INDEX IF NOT EXISTS orders_closed ON orders (changed) WHERE state = 'closed';
CREATE INDEX IF NOT EXISTS orders_draft ON orders (draft);

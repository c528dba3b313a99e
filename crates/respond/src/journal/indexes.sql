-- Made behind the columns that journals of the first builds lack; the indexes of those builds go.
DROP INDEX IF EXISTS effect_live;
DROP INDEX IF EXISTS effect_closed;
CREATE INDEX IF NOT EXISTS effect_open ON effect (id) WHERE state <> 'closed';
CREATE INDEX IF NOT EXISTS effect_done ON effect (changed, size) WHERE state = 'closed';

-- What changes, for those who follow it, and how far each reader of something has come.

CREATE TABLE positions (
    name text COLLATE "C" PRIMARY KEY,
    position text NOT NULL,
    moved_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One row for each statement, instrument and timeframe. `xact` tells in which order transactions are seen, which no clock does: a
-- follower has read what was visible in the snapshot that its position is.
CREATE TABLE changes (
    xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    kind text NOT NULL,
    instrument_id text NOT NULL,
    timeframe text,
    times timestamptz[] NOT NULL
);
CREATE INDEX ON changes (xact);

CREATE FUNCTION asof_followed() RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
    RETURN EXISTS (SELECT FROM positions WHERE starts_with(name, 'changes/'));

CREATE FUNCTION asof_note_event() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF asof_followed() THEN
        INSERT INTO changes (kind, instrument_id, times)
            SELECT 'events', instrument_id, array_agg(enriched_at_utc) FROM inserted GROUP BY instrument_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER asof_note_inserted AFTER INSERT ON events REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT
    EXECUTE FUNCTION asof_note_event();

CREATE OR REPLACE FUNCTION asof_keep_event() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    ends timestamptz;
BEGIN
    ends := asof_known_from(CASE TG_OP WHEN 'UPDATE' THEN NEW.known_from ELSE OLD.known_from END, OLD.known_from);
    INSERT INTO history.events VALUES (
        OLD.instrument_id, OLD.event_id, OLD.enriched_at_utc, OLD.event_time_utc, OLD.score, OLD.confidence, OLD.scored_at_utc,
        OLD.known_from, ends
    );
    IF asof_followed() THEN
        INSERT INTO changes (kind, instrument_id, times) VALUES ('events', OLD.instrument_id, ARRAY[OLD.enriched_at_utc]);
        IF TG_OP = 'UPDATE' AND NEW.enriched_at_utc <> OLD.enriched_at_utc THEN
            INSERT INTO changes (kind, instrument_id, times) VALUES ('events', NEW.instrument_id, ARRAY[NEW.enriched_at_utc]);
        END IF;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    NEW.known_from := ends;
    RETURN NEW;
END $$;

-- Events as they were held to be true at a moment.
CREATE FUNCTION events_at(known timestamptz) RETURNS SETOF events LANGUAGE sql STABLE AS $$
    SELECT * FROM events WHERE known_from <= known
    UNION ALL
    SELECT instrument_id, event_id, enriched_at_utc, event_time_utc, score, confidence, scored_at_utc, known_from FROM history.events
    WHERE known_from <= known AND known_to > known
$$;

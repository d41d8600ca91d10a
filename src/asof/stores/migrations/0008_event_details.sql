-- What events are about, where they come from, and whether they repeat another: columns that their messages have had all along.

ALTER TABLE events
    ADD COLUMN category text, ADD COLUMN source text, ADD COLUMN source_name text, ADD COLUMN text_hash text, ADD COLUMN is_repost boolean;
ALTER TABLE history.events
    ADD COLUMN category text, ADD COLUMN source text, ADD COLUMN source_name text, ADD COLUMN text_hash text, ADD COLUMN is_repost boolean;

CREATE OR REPLACE FUNCTION asof_keep_event() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    ends timestamptz;
BEGIN
    ends := asof_known_from(CASE TG_OP WHEN 'UPDATE' THEN NEW.known_from ELSE OLD.known_from END, OLD.known_from);
    INSERT INTO history.events (
        instrument_id, event_id, enriched_at_utc, event_time_utc, score, confidence, scored_at_utc,
        category, source, source_name, text_hash, is_repost, known_from, known_to
    ) VALUES (
        OLD.instrument_id, OLD.event_id, OLD.enriched_at_utc, OLD.event_time_utc, OLD.score, OLD.confidence, OLD.scored_at_utc,
        OLD.category, OLD.source, OLD.source_name, OLD.text_hash, OLD.is_repost, OLD.known_from, ends
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
DROP TRIGGER asof_keep_changed ON events;
CREATE TRIGGER asof_keep_changed BEFORE UPDATE ON events FOR EACH ROW WHEN (
    (OLD.instrument_id, OLD.event_id, OLD.enriched_at_utc, OLD.event_time_utc, OLD.score, OLD.confidence, OLD.scored_at_utc,
     OLD.category, OLD.source, OLD.source_name, OLD.text_hash, OLD.is_repost)
    IS DISTINCT FROM
    (NEW.instrument_id, NEW.event_id, NEW.enriched_at_utc, NEW.event_time_utc, NEW.score, NEW.confidence, NEW.scored_at_utc,
     NEW.category, NEW.source, NEW.source_name, NEW.text_hash, NEW.is_repost)
) EXECUTE FUNCTION asof_keep_event();

-- Events as they were held to be true at a moment, in the order that the columns of the table now have.
CREATE OR REPLACE FUNCTION events_at(known timestamptz) RETURNS SETOF events LANGUAGE sql STABLE AS $$
    SELECT * FROM events WHERE known_from <= known
    UNION ALL
    SELECT instrument_id, event_id, enriched_at_utc, event_time_utc, score, confidence, scored_at_utc, known_from,
        category, source, source_name, text_hash, is_repost
    FROM history.events WHERE known_from <= known AND known_to > known
$$;

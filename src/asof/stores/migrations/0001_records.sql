-- `history`, where superseded revisions are kept by triggers, whoever writes; and events. Bars have a file of their own, ohlcv.sql.

CREATE SCHEMA history;

-- A price or a volume as asof reads it: null where it is NaN, infinite, or beyond what a double can hold.
CREATE FUNCTION asof_number(value numeric) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN value = 0 OR abs(value) BETWEEN 4.9406564584124654e-324 AND 1.7976931348623157e308 THEN value::double precision END;
CREATE FUNCTION asof_number(value double precision) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN value BETWEEN '-1.7976931348623157e308' AND '1.7976931348623157e308' THEN value END;

-- When a new revision begins: at the time that asof gives (with the row, or in `asof.known_at` where it deletes), or now where another
-- program wrote; in any case after the one before.
CREATE FUNCTION asof_known_from(given timestamptz, before timestamptz) RETURNS timestamptz LANGUAGE sql VOLATILE RETURN greatest(
    CASE WHEN given IS DISTINCT FROM before THEN given
        ELSE coalesce(nullif(current_setting('asof.known_at', true), '')::timestamptz, clock_timestamp()) END,
    before + interval '1 microsecond'
);

CREATE TABLE events (
    instrument_id text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    enriched_at_utc timestamptz NOT NULL,
    event_time_utc timestamptz,
    score double precision,
    confidence double precision,
    scored_at_utc timestamptz NOT NULL,
    known_from timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (instrument_id, event_id)
);
CREATE INDEX ON events (instrument_id, enriched_at_utc);
CREATE TABLE history.events (LIKE events, known_to timestamptz NOT NULL, PRIMARY KEY (instrument_id, event_id, known_from));
CREATE INDEX ON history.events (known_to);

CREATE FUNCTION asof_keep_event() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    ends timestamptz;
BEGIN
    ends := asof_known_from(CASE TG_OP WHEN 'UPDATE' THEN NEW.known_from ELSE OLD.known_from END, OLD.known_from);
    INSERT INTO history.events VALUES (
        OLD.instrument_id, OLD.event_id, OLD.enriched_at_utc, OLD.event_time_utc, OLD.score, OLD.confidence, OLD.scored_at_utc,
        OLD.known_from, ends
    );
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    NEW.known_from := ends;
    RETURN NEW;
END $$;
CREATE TRIGGER asof_keep_changed BEFORE UPDATE ON events FOR EACH ROW WHEN (
    (OLD.instrument_id, OLD.event_id, OLD.enriched_at_utc, OLD.event_time_utc, OLD.score, OLD.confidence, OLD.scored_at_utc)
    IS DISTINCT FROM
    (NEW.instrument_id, NEW.event_id, NEW.enriched_at_utc, NEW.event_time_utc, NEW.score, NEW.confidence, NEW.scored_at_utc)
) EXECUTE FUNCTION asof_keep_event();
CREATE TRIGGER asof_keep_deleted BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION asof_keep_event();

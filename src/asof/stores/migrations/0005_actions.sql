-- Splits and dividends, with their superseded revisions, and noted for those who follow what changes.

CREATE TABLE actions (
    instrument_id text COLLATE "C" NOT NULL,
    ts timestamptz NOT NULL,
    split double precision NOT NULL,
    dividend_factor double precision NOT NULL,
    known_from timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (instrument_id, ts)
);
CREATE TABLE history.actions (LIKE actions, known_to timestamptz NOT NULL, PRIMARY KEY (instrument_id, ts, known_from));
CREATE INDEX ON history.actions (known_to);

CREATE FUNCTION asof_keep_action() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    ends timestamptz;
BEGIN
    ends := asof_known_from(CASE TG_OP WHEN 'UPDATE' THEN NEW.known_from ELSE OLD.known_from END, OLD.known_from);
    INSERT INTO history.actions VALUES (OLD.instrument_id, OLD.ts, OLD.split, OLD.dividend_factor, OLD.known_from, ends);
    IF asof_followed() THEN
        INSERT INTO changes (kind, instrument_id, times) VALUES ('actions', OLD.instrument_id, ARRAY[OLD.ts]);
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    IF asof_followed() AND (NEW.instrument_id, NEW.ts) <> (OLD.instrument_id, OLD.ts) THEN
        INSERT INTO changes (kind, instrument_id, times) VALUES ('actions', NEW.instrument_id, ARRAY[NEW.ts]);
    END IF;
    NEW.known_from := ends;
    RETURN NEW;
END $$;
CREATE TRIGGER asof_keep_changed BEFORE UPDATE ON actions FOR EACH ROW WHEN (
    (OLD.instrument_id, OLD.ts, OLD.split, OLD.dividend_factor) IS DISTINCT FROM (NEW.instrument_id, NEW.ts, NEW.split, NEW.dividend_factor)
) EXECUTE FUNCTION asof_keep_action();
CREATE TRIGGER asof_keep_deleted BEFORE DELETE ON actions FOR EACH ROW EXECUTE FUNCTION asof_keep_action();

CREATE FUNCTION asof_note_action() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF asof_followed() THEN
        INSERT INTO changes (kind, instrument_id, times) SELECT 'actions', instrument_id, array_agg(ts) FROM inserted GROUP BY instrument_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER asof_note_inserted AFTER INSERT ON actions REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT
    EXECUTE FUNCTION asof_note_action();

-- Actions as they were held to be true at a moment.
CREATE FUNCTION actions_at(known timestamptz) RETURNS SETOF actions LANGUAGE sql STABLE AS $$
    SELECT * FROM actions WHERE known_from <= known
    UNION ALL
    SELECT instrument_id, ts, split, dividend_factor, known_from FROM history.actions WHERE known_from <= known AND known_to > known
$$;

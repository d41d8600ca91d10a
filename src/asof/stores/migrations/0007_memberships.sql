-- Memberships of instruments in universes and groupings, with their superseded revisions, and noted for those who follow what changes.

CREATE TABLE memberships (
    scheme text COLLATE "C" NOT NULL,
    instrument_id text COLLATE "C" NOT NULL,
    ts timestamptz NOT NULL,
    value text,
    available_at timestamptz,
    known_from timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (scheme, instrument_id, ts)
);
CREATE INDEX ON memberships (instrument_id, ts);
CREATE TABLE history.memberships (LIKE memberships, known_to timestamptz NOT NULL, PRIMARY KEY (scheme, instrument_id, ts, known_from));
CREATE INDEX ON history.memberships (known_to);

CREATE FUNCTION asof_keep_membership() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    ends timestamptz;
BEGIN
    ends := asof_known_from(CASE TG_OP WHEN 'UPDATE' THEN NEW.known_from ELSE OLD.known_from END, OLD.known_from);
    INSERT INTO history.memberships VALUES (
        OLD.scheme, OLD.instrument_id, OLD.ts, OLD.value, OLD.available_at, OLD.known_from, ends
    );
    IF asof_followed() THEN
        INSERT INTO changes (kind, instrument_id, times) VALUES ('memberships/' || OLD.scheme, OLD.instrument_id, ARRAY[OLD.ts]);
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    IF asof_followed() AND (NEW.scheme, NEW.instrument_id, NEW.ts) <> (OLD.scheme, OLD.instrument_id, OLD.ts) THEN
        INSERT INTO changes (kind, instrument_id, times) VALUES ('memberships/' || NEW.scheme, NEW.instrument_id, ARRAY[NEW.ts]);
    END IF;
    NEW.known_from := ends;
    RETURN NEW;
END $$;
CREATE TRIGGER asof_keep_changed BEFORE UPDATE ON memberships FOR EACH ROW WHEN (
    (OLD.scheme, OLD.instrument_id, OLD.ts, OLD.value, OLD.available_at)
    IS DISTINCT FROM (NEW.scheme, NEW.instrument_id, NEW.ts, NEW.value, NEW.available_at)
) EXECUTE FUNCTION asof_keep_membership();
CREATE TRIGGER asof_keep_deleted BEFORE DELETE ON memberships FOR EACH ROW EXECUTE FUNCTION asof_keep_membership();

CREATE FUNCTION asof_note_membership() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF asof_followed() THEN
        INSERT INTO changes (kind, instrument_id, times)
            SELECT 'memberships/' || scheme, instrument_id, array_agg(ts) FROM inserted GROUP BY scheme, instrument_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER asof_note_inserted AFTER INSERT ON memberships REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT
    EXECUTE FUNCTION asof_note_membership();

-- Memberships as they were held to be true at a moment.
CREATE FUNCTION memberships_at(known timestamptz) RETURNS SETOF memberships LANGUAGE sql STABLE AS $$
    SELECT * FROM memberships WHERE known_from <= known
    UNION ALL
    SELECT scheme, instrument_id, ts, value, available_at, known_from FROM history.memberships
    WHERE known_from <= known AND known_to > known
$$;

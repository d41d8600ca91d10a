-- Bars. Another program may own `ohlcv`, and may make it, before this runs or again later: so this runs with every migration, and
-- changes what is missing.

DO $$
DECLARE
    wanted constant text[] := ARRAY['instrument_id', 'timeframe', 'ts', 'open', 'high', 'low', 'close', 'volume'];
    added constant jsonb := '{"source": "text", "ingested_at": "timestamptz", "available_at": "timestamptz",
        "known_from": "timestamptz NOT NULL DEFAULT now()"}';
    there text[];
    missing text;
    owner regrole;
BEGIN
    IF to_regclass('ohlcv') IS NULL THEN
        CREATE TABLE ohlcv (
            instrument_id text COLLATE "C" NOT NULL,
            timeframe text COLLATE "C" NOT NULL,
            ts timestamptz NOT NULL,
            open numeric,
            high numeric,
            low numeric,
            close numeric,
            volume numeric,
            source text,
            ingested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            available_at timestamptz,
            known_from timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (instrument_id, timeframe, ts)
        );
        COMMENT ON TABLE ohlcv IS 'Bars in force; made by asof';
        RETURN;
    END IF;
    SELECT relowner, array_agg(attname::text) INTO owner, there FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE pg_class.oid = 'ohlcv'::regclass AND attnum > 0 AND NOT attisdropped GROUP BY relowner;
    IF NOT there @> wanted THEN
        RAISE EXCEPTION 'the table ohlcv of % has no column %', owner,
            (SELECT string_agg(name, ', ') FROM unnest(wanted) AS name WHERE name <> ALL (there));
    END IF;
    SELECT 'ALTER TABLE ohlcv ' || string_agg(format('ADD COLUMN %I %s', key, value), ', ') INTO missing
        FROM jsonb_each_text(added) WHERE key <> ALL (there);
    IF missing IS NOT NULL AND NOT pg_has_role(owner, 'USAGE') THEN
        RAISE insufficient_privilege USING MESSAGE = format('the table ohlcv belongs to %s and lacks columns', owner),
            HINT = format('%s can add them: %s; ALTER TABLE ohlcv ALTER COLUMN known_from SET DEFAULT clock_timestamp()', owner, missing);
    ELSIF missing IS NOT NULL THEN
        EXECUTE missing;
        ALTER TABLE ohlcv ALTER COLUMN known_from SET DEFAULT clock_timestamp();
    END IF;
    IF NOT (has_table_privilege('ohlcv', 'SELECT') AND has_table_privilege('ohlcv', 'TRIGGER')) THEN
        RAISE insufficient_privilege USING MESSAGE = format('the table ohlcv belongs to %s, and %s may not keep its revisions', owner, current_user),
            HINT = format('%s can allow it: GRANT SELECT, INSERT, UPDATE, TRIGGER ON ohlcv TO %I', owner, current_user);
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_index WHERE indrelid = 'ohlcv'::regclass AND indisunique AND indpred IS NULL AND indnkeyatts = 3 AND ARRAY(
            SELECT attname::text FROM pg_attribute WHERE attrelid = indrelid AND attnum = ANY (indkey) ORDER BY attname
        ) = ARRAY['instrument_id', 'timeframe', 'ts']
    ) THEN
        CREATE UNIQUE INDEX ON ohlcv (instrument_id, timeframe, ts);
    END IF;
END $$;

-- Its columns have the types that those of `ohlcv` have, so that no bit of a revision is lost.
CREATE TABLE IF NOT EXISTS history.ohlcv AS
    SELECT instrument_id, timeframe, ts, open, high, low, close, volume, source, available_at, known_from, known_from AS known_to
    FROM ohlcv WITH NO DATA;
CREATE UNIQUE INDEX IF NOT EXISTS ohlcv_revision ON history.ohlcv (instrument_id, timeframe, ts, known_from);
CREATE INDEX IF NOT EXISTS ohlcv_known_to ON history.ohlcv (known_to);

CREATE OR REPLACE FUNCTION asof_keep_ohlcv() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    ends timestamptz;
BEGIN
    ends := asof_known_from(CASE TG_OP WHEN 'UPDATE' THEN NEW.known_from ELSE OLD.known_from END, OLD.known_from);
    INSERT INTO history.ohlcv VALUES (
        OLD.instrument_id, OLD.timeframe, OLD.ts, OLD.open, OLD.high, OLD.low, OLD.close, OLD.volume, OLD.source, OLD.available_at,
        OLD.known_from, ends
    );
    IF asof_followed() THEN
        INSERT INTO changes (kind, instrument_id, timeframe, times) VALUES ('bars', OLD.instrument_id, OLD.timeframe, ARRAY[OLD.ts]);
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    NEW.known_from := ends;
    RETURN NEW;
END $$;

DO $$
BEGIN
    IF (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'ohlcv'::regclass AND tgname LIKE 'asof\_keep\_%' AND tgenabled <> 'D') < 2 THEN
        CREATE OR REPLACE TRIGGER asof_keep_changed BEFORE UPDATE ON ohlcv FOR EACH ROW WHEN (
            (OLD.instrument_id, OLD.timeframe, OLD.ts, OLD.open, OLD.high, OLD.low, OLD.close, OLD.volume, OLD.available_at)
            IS DISTINCT FROM
            (NEW.instrument_id, NEW.timeframe, NEW.ts, NEW.open, NEW.high, NEW.low, NEW.close, NEW.volume, NEW.available_at)
        ) EXECUTE FUNCTION asof_keep_ohlcv();
        CREATE OR REPLACE TRIGGER asof_keep_deleted BEFORE DELETE ON ohlcv FOR EACH ROW EXECUTE FUNCTION asof_keep_ohlcv();
    END IF;
END $$;

-- What is inserted is noted once a statement; for hypertables of TimescaleDB before 2.18, which cannot, once a row.
CREATE OR REPLACE FUNCTION asof_note_ohlcv() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF asof_followed() AND TG_LEVEL = 'ROW' THEN
        INSERT INTO changes (kind, instrument_id, timeframe, times) VALUES ('bars', NEW.instrument_id, NEW.timeframe, ARRAY[NEW.ts]);
    ELSIF asof_followed() THEN
        INSERT INTO changes (kind, instrument_id, timeframe, times)
            SELECT 'bars', instrument_id, timeframe, array_agg(ts) FROM inserted GROUP BY instrument_id, timeframe;
    END IF;
    RETURN NULL;
END $$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'ohlcv'::regclass AND tgname = 'asof_note_inserted' AND tgenabled <> 'D') THEN
        BEGIN
            CREATE OR REPLACE TRIGGER asof_note_inserted AFTER INSERT ON ohlcv REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT
                EXECUTE FUNCTION asof_note_ohlcv();
        EXCEPTION WHEN feature_not_supported THEN
            CREATE OR REPLACE TRIGGER asof_note_inserted AFTER INSERT ON ohlcv FOR EACH ROW EXECUTE FUNCTION asof_note_ohlcv();
        END;
    END IF;
END $$;

-- Bars as they were held to be true at a moment.
CREATE OR REPLACE FUNCTION ohlcv_at(known timestamptz) RETURNS TABLE (
    instrument_id text, timeframe text, ts timestamptz, open double precision, high double precision, low double precision,
    close double precision, volume double precision, source text, available_at timestamptz, known_from timestamptz
) LANGUAGE sql STABLE AS $$
    SELECT b.instrument_id, b.timeframe, b.ts, asof_number(b.open), asof_number(b.high), asof_number(b.low), asof_number(b.close),
        asof_number(b.volume), b.source, b.available_at, b.known_from
    FROM ohlcv b WHERE b.known_from <= known
    UNION ALL
    SELECT b.instrument_id, b.timeframe, b.ts, asof_number(b.open), asof_number(b.high), asof_number(b.low), asof_number(b.close),
        asof_number(b.volume), b.source, b.available_at, b.known_from
    FROM history.ohlcv b WHERE b.known_from <= known AND b.known_to > known
$$;

-- The registry of feature sets, and the vectors of all of them in one table.

CREATE TABLE registry (
    version text COLLATE "C" PRIMARY KEY,
    fingerprint text NOT NULL,
    definition text NOT NULL,
    applied_at timestamptz NOT NULL,
    features text[] NOT NULL,
    event_window interval
);
COMMENT ON COLUMN registry.features IS 'The names of the values in feature_vectors.features, in their order';

CREATE TABLE feature_vectors (
    instrument_id text COLLATE "C" NOT NULL,
    timeframe text COLLATE "C" NOT NULL,
    ts timestamptz NOT NULL,
    feature_set_version text COLLATE "C" NOT NULL,
    features double precision[] NOT NULL,
    quality_flags text[] NOT NULL,
    computed_at timestamptz NOT NULL,
    pipeline_version text NOT NULL,
    event_window_start timestamptz,
    event_window_end timestamptz,
    event_count bigint NOT NULL,
    ohlcv_count bigint NOT NULL,
    available_at timestamptz NOT NULL CHECK (available_at >= ts),
    known_from timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (instrument_id, timeframe, ts, feature_set_version)
);
CREATE INDEX feature_vectors_newest ON feature_vectors (instrument_id, timeframe, ts DESC);
CREATE INDEX feature_vectors_version ON feature_vectors (feature_set_version);
CREATE INDEX feature_vectors_computed ON feature_vectors (computed_at DESC);
CREATE INDEX feature_vectors_flags ON feature_vectors USING gin (quality_flags);

CREATE TABLE history.feature_vectors (
    LIKE feature_vectors, known_to timestamptz NOT NULL, PRIMARY KEY (instrument_id, timeframe, ts, feature_set_version, known_from)
);
CREATE INDEX ON history.feature_vectors (known_to);

CREATE FUNCTION asof_keep_vector() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    ends timestamptz;
BEGIN
    ends := asof_known_from(CASE TG_OP WHEN 'UPDATE' THEN NEW.known_from ELSE OLD.known_from END, OLD.known_from);
    INSERT INTO history.feature_vectors VALUES (
        OLD.instrument_id, OLD.timeframe, OLD.ts, OLD.feature_set_version, OLD.features, OLD.quality_flags, OLD.computed_at,
        OLD.pipeline_version, OLD.event_window_start, OLD.event_window_end, OLD.event_count, OLD.ohlcv_count, OLD.available_at,
        OLD.known_from, ends
    );
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    NEW.known_from := ends;
    RETURN NEW;
END $$;
CREATE TRIGGER asof_keep_changed BEFORE UPDATE ON feature_vectors FOR EACH ROW WHEN (
    (OLD.instrument_id, OLD.timeframe, OLD.ts, OLD.feature_set_version, OLD.features, OLD.quality_flags, OLD.event_count,
     OLD.ohlcv_count, OLD.available_at) IS DISTINCT FROM
    (NEW.instrument_id, NEW.timeframe, NEW.ts, NEW.feature_set_version, NEW.features, NEW.quality_flags, NEW.event_count,
     NEW.ohlcv_count, NEW.available_at)
) EXECUTE FUNCTION asof_keep_vector();
CREATE TRIGGER asof_keep_deleted BEFORE DELETE ON feature_vectors FOR EACH ROW EXECUTE FUNCTION asof_keep_vector();

-- `features` by name, for those who want features->>'ret_1'; one that is missing is absent.
CREATE VIEW feature_vectors_json AS
    SELECT v.instrument_id, v.timeframe, v.ts, v.feature_set_version,
        (SELECT jsonb_object_agg(f.name, f.value) FROM unnest(r.features, v.features) AS f (name, value) WHERE f.value IS NOT NULL) AS features,
        v.quality_flags, v.computed_at, v.pipeline_version, v.event_window_start, v.event_window_end, v.event_count, v.ohlcv_count,
        v.available_at, v.known_from
    FROM feature_vectors v JOIN registry r ON r.version = v.feature_set_version;

CREATE MATERIALIZED VIEW feature_vectors_latest AS
    SELECT DISTINCT ON (instrument_id, timeframe, feature_set_version) *
    FROM feature_vectors ORDER BY instrument_id, timeframe, feature_set_version, ts DESC;
CREATE UNIQUE INDEX feature_vectors_latest_key ON feature_vectors_latest (instrument_id, timeframe, feature_set_version);

-- Readers are not kept waiting; only the owner of a view may refresh it, so it is done as the owner.
CREATE FUNCTION refresh_feature_vectors_latest() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    REFRESH MATERIALIZED VIEW CONCURRENTLY feature_vectors_latest;
END $$;

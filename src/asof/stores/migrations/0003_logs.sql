-- What could not be used, and what went wrong beyond a single vector. An entry is kept once, whenever and however often it is found.

CREATE TABLE quarantine (
    kind text NOT NULL,
    reason text NOT NULL,
    detail text,
    source text,
    "row" bigint,
    record text,
    detected_at timestamptz
);
CREATE UNIQUE INDEX quarantine_once ON quarantine (kind, reason, md5(detail), source, "row", md5(record)) NULLS NOT DISTINCT;

CREATE TABLE feature_quality_log (
    instrument_id text COLLATE "C" NOT NULL,
    timeframe text COLLATE "C",
    feature_set_version text COLLATE "C",
    issue_type text NOT NULL,
    issue_details jsonb,
    detected_at timestamptz DEFAULT clock_timestamp(),
    ts_start timestamptz,
    ts_end timestamptz
);
CREATE UNIQUE INDEX feature_quality_log_once ON feature_quality_log
    (instrument_id, timeframe, feature_set_version, issue_type, md5(issue_details::text), ts_start, ts_end) NULLS NOT DISTINCT;

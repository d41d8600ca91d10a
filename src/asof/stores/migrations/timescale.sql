-- What only TimescaleDB (2.17 or later) runs: chunks of seven days, and the policies that the settings ask for. Safe to run again.
-- `asof.columnstore_after` and `asof.retention` are set by the migration: an interval, or an empty text for none.

CREATE FUNCTION pg_temp.asof_chunk(relation regclass, segments text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    columnstore_after constant interval := nullif(current_setting('asof.columnstore_after'), '');
    retention constant interval := nullif(current_setting('asof.retention'), '');
    -- Before 2.18 a hypertable cannot note what a statement inserts, only what each row does.
    noted_by_statement constant boolean := relation <> 'feature_vectors'::regclass AND
        (SELECT string_to_array(extversion, '.')::int[] < '{2,18}' FROM pg_extension WHERE extname = 'timescaledb');
BEGIN
    IF noted_by_statement AND NOT EXISTS (SELECT FROM timescaledb_information.hypertables WHERE hypertable_name = relation::text) THEN
        EXECUTE format('DROP TRIGGER asof_note_inserted ON %s', relation);
        EXECUTE format(
            'CREATE TRIGGER asof_note_inserted AFTER INSERT ON %1$s FOR EACH ROW EXECUTE FUNCTION asof_note_%2$s(%1$L)',
            relation, CASE relation WHEN 'ohlcv'::regclass THEN 'ohlcv' ELSE 'point' END
        );
    END IF;
    PERFORM create_hypertable(
        relation, by_range('ts', INTERVAL '7 days'), create_default_indexes => false, if_not_exists => true, migrate_data => true
    );
    IF current_setting('timescaledb.license') <> 'timescale' THEN
        RETURN;  -- the Apache edition has no policies
    END IF;
    PERFORM remove_compression_policy(relation, if_exists => true);
    PERFORM remove_retention_policy(relation, if_exists => true);
    IF columnstore_after IS NOT NULL THEN
        EXECUTE format(
            'ALTER TABLE %s SET (timescaledb.compress, timescaledb.compress_segmentby = %L, timescaledb.compress_orderby = %L)',
            relation, segments, 'ts DESC'
        );
        PERFORM add_compression_policy(relation, compress_after => columnstore_after);
    END IF;
    IF retention IS NOT NULL THEN
        PERFORM add_retention_policy(relation, drop_after => retention);
    END IF;
END $$;

SELECT pg_temp.asof_chunk('feature_vectors', 'instrument_id, timeframe, feature_set_version');
-- The bars of another program are its own to lay out.
SELECT pg_temp.asof_chunk('ohlcv', 'instrument_id, timeframe') WHERE obj_description('ohlcv'::regclass) LIKE '%made by asof';
SELECT pg_temp.asof_chunk('trades', 'instrument_id');
SELECT pg_temp.asof_chunk('quotes', 'instrument_id');
SELECT pg_temp.asof_chunk('books', 'instrument_id');

-- Trades, quotes and order books, with their superseded revisions, and noted for those who follow what changes.

CREATE TABLE trades (
    instrument_id text COLLATE "C" NOT NULL,
    ts timestamptz NOT NULL,
    seq bigint NOT NULL,
    price double precision NOT NULL,
    size double precision NOT NULL,
    side double precision,
    available_at timestamptz NOT NULL CHECK (available_at >= ts),
    known_from timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (instrument_id, ts, seq)
);
CREATE INDEX trades_known ON trades (instrument_id, available_at);
CREATE TABLE history.trades (LIKE trades, known_to timestamptz NOT NULL, PRIMARY KEY (instrument_id, ts, seq, known_from));
CREATE INDEX ON history.trades (known_to);

CREATE TABLE quotes (
    instrument_id text COLLATE "C" NOT NULL,
    ts timestamptz NOT NULL,
    seq bigint NOT NULL,
    bid double precision,
    bid_size double precision,
    ask double precision,
    ask_size double precision,
    available_at timestamptz NOT NULL CHECK (available_at >= ts),
    known_from timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (instrument_id, ts, seq)
);
CREATE INDEX quotes_known ON quotes (instrument_id, available_at);
CREATE TABLE history.quotes (LIKE quotes, known_to timestamptz NOT NULL, PRIMARY KEY (instrument_id, ts, seq, known_from));
CREATE INDEX ON history.quotes (known_to);

CREATE TABLE books (
    instrument_id text COLLATE "C" NOT NULL,
    ts timestamptz NOT NULL,
    seq bigint NOT NULL,
    bid_prices double precision[] NOT NULL,
    bid_sizes double precision[] NOT NULL,
    ask_prices double precision[] NOT NULL,
    ask_sizes double precision[] NOT NULL,
    gap boolean NOT NULL,
    available_at timestamptz NOT NULL CHECK (available_at >= ts),
    known_from timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (instrument_id, ts, seq)
);
CREATE INDEX books_known ON books (instrument_id, available_at);
CREATE TABLE history.books (LIKE books, known_to timestamptz NOT NULL, PRIMARY KEY (instrument_id, ts, seq, known_from));
CREATE INDEX ON history.books (known_to);

-- The argument is the table's name, for a trigger of a hypertable sees the name of a chunk.
CREATE FUNCTION asof_keep_point() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    ends timestamptz;
BEGIN
    ends := asof_known_from(CASE TG_OP WHEN 'UPDATE' THEN NEW.known_from ELSE OLD.known_from END, OLD.known_from);
    EXECUTE format('INSERT INTO history.%I SELECT ($1).*, $2', TG_ARGV[0]) USING OLD, ends;
    IF asof_followed() THEN
        INSERT INTO changes (kind, instrument_id, times) VALUES (TG_ARGV[0], OLD.instrument_id, ARRAY[OLD.available_at]);
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    IF asof_followed() AND (NEW.instrument_id, NEW.available_at) <> (OLD.instrument_id, OLD.available_at) THEN
        INSERT INTO changes (kind, instrument_id, times) VALUES (TG_ARGV[0], NEW.instrument_id, ARRAY[NEW.available_at]);
    END IF;
    NEW.known_from := ends;
    RETURN NEW;
END $$;

-- What is inserted is noted once a statement; for hypertables of TimescaleDB before 2.18, which cannot, once a row.
CREATE FUNCTION asof_note_point() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF asof_followed() AND TG_LEVEL = 'ROW' THEN
        INSERT INTO changes (kind, instrument_id, times) VALUES (TG_ARGV[0], NEW.instrument_id, ARRAY[NEW.available_at]);
    ELSIF asof_followed() THEN
        INSERT INTO changes (kind, instrument_id, times)
            SELECT TG_ARGV[0], instrument_id, array_agg(available_at) FROM inserted GROUP BY instrument_id;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER asof_keep_changed BEFORE UPDATE ON trades FOR EACH ROW WHEN (
    (OLD.instrument_id, OLD.ts, OLD.seq, OLD.price, OLD.size, OLD.side, OLD.available_at)
    IS DISTINCT FROM
    (NEW.instrument_id, NEW.ts, NEW.seq, NEW.price, NEW.size, NEW.side, NEW.available_at)
) EXECUTE FUNCTION asof_keep_point('trades');
CREATE TRIGGER asof_keep_changed BEFORE UPDATE ON quotes FOR EACH ROW WHEN (
    (OLD.instrument_id, OLD.ts, OLD.seq, OLD.bid, OLD.bid_size, OLD.ask, OLD.ask_size, OLD.available_at)
    IS DISTINCT FROM
    (NEW.instrument_id, NEW.ts, NEW.seq, NEW.bid, NEW.bid_size, NEW.ask, NEW.ask_size, NEW.available_at)
) EXECUTE FUNCTION asof_keep_point('quotes');
CREATE TRIGGER asof_keep_changed BEFORE UPDATE ON books FOR EACH ROW WHEN (
    (OLD.instrument_id, OLD.ts, OLD.seq, OLD.bid_prices, OLD.bid_sizes, OLD.ask_prices, OLD.ask_sizes, OLD.gap, OLD.available_at)
    IS DISTINCT FROM
    (NEW.instrument_id, NEW.ts, NEW.seq, NEW.bid_prices, NEW.bid_sizes, NEW.ask_prices, NEW.ask_sizes, NEW.gap, NEW.available_at)
) EXECUTE FUNCTION asof_keep_point('books');

CREATE TRIGGER asof_keep_deleted BEFORE DELETE ON trades FOR EACH ROW EXECUTE FUNCTION asof_keep_point('trades');
CREATE TRIGGER asof_keep_deleted BEFORE DELETE ON quotes FOR EACH ROW EXECUTE FUNCTION asof_keep_point('quotes');
CREATE TRIGGER asof_keep_deleted BEFORE DELETE ON books FOR EACH ROW EXECUTE FUNCTION asof_keep_point('books');

CREATE TRIGGER asof_note_inserted AFTER INSERT ON trades REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT
    EXECUTE FUNCTION asof_note_point('trades');
CREATE TRIGGER asof_note_inserted AFTER INSERT ON quotes REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT
    EXECUTE FUNCTION asof_note_point('quotes');
CREATE TRIGGER asof_note_inserted AFTER INSERT ON books REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT
    EXECUTE FUNCTION asof_note_point('books');

-- Trades, quotes and books as they were held to be true at a moment.
CREATE FUNCTION trades_at(known timestamptz) RETURNS SETOF trades LANGUAGE sql STABLE AS $$
    SELECT * FROM trades WHERE known_from <= known
    UNION ALL
    SELECT instrument_id, ts, seq, price, size, side, available_at, known_from FROM history.trades
    WHERE known_from <= known AND known_to > known
$$;
CREATE FUNCTION quotes_at(known timestamptz) RETURNS SETOF quotes LANGUAGE sql STABLE AS $$
    SELECT * FROM quotes WHERE known_from <= known
    UNION ALL
    SELECT instrument_id, ts, seq, bid, bid_size, ask, ask_size, available_at, known_from FROM history.quotes
    WHERE known_from <= known AND known_to > known
$$;
CREATE FUNCTION books_at(known timestamptz) RETURNS SETOF books LANGUAGE sql STABLE AS $$
    SELECT * FROM books WHERE known_from <= known
    UNION ALL
    SELECT instrument_id, ts, seq, bid_prices, bid_sizes, ask_prices, ask_sizes, gap, available_at, known_from FROM history.books
    WHERE known_from <= known AND known_to > known
$$;

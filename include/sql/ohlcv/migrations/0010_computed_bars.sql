-- What ohlcv.bars_from_candles and ohlcv.bars_from_bars return to ohlcv.build_bars, which compares it with stored bars.
create type ohlcv.computed_bar as (
    range_index integer,
    symbol text,
    ts timestamptz,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume numeric,
    price_volume numeric,
    trades bigint,
    candles integer,
    expected_candles integer,
    is_valid boolean
);

-- Called by aggregator.ohlcv. Makes the months in which candles may arrive until long after the next run.
select ohlcv.add_candle_partitions(
    %(as_of)s::timestamptz - interval '1 month', %(as_of)s::timestamptz + interval '2 months'
) as added

-- Called by aggregator.ohlcv where candles have a retention. Answers with the partitions that are gone.
select
    ohlcv.drop_candle_partitions(
        %(as_of)s::timestamptz - make_interval(days => %(days)s::integer), %(env_name)s::text
    ) as dropped

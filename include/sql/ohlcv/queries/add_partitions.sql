-- Called by aggregator.ohlcv.plan. Returns the number of candle partitions that were created. Creates the months in
-- which candles may arrive before the next run. With a retention, it creates no month that would be dropped at once. It
-- creates none before the oldest existing month either: clearing an old run does not bring dropped months back.
select
    ohlcv.add_candle_partitions(
        greatest(
            %(as_of)s::timestamptz - interval '1 month',
            %(as_of)s::timestamptz - make_interval(days => %(candle_retention_days)s::integer),
            case when %(candle_retention_days)s::integer is not null then min(month.starts_at) end
        ),
        %(as_of)s::timestamptz + interval '2 months'
    ) as added
from ohlcv.candle_partitions() as month

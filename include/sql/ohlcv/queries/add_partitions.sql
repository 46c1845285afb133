-- Called by aggregator.ohlcv. Makes the months in which candles may arrive until long after the next run. With a
-- retention, none that it would drop at once, and none before the oldest one: a run of long ago that is cleared does
-- not bring months back that were dropped.
select
    ohlcv.add_candle_partitions(
        greatest(
            %(as_of)s::timestamptz - interval '1 month',
            %(as_of)s::timestamptz - make_interval(days => %(days)s::integer),
            case when %(days)s::integer is not null then min(month.starts_at) end
        ),
        %(as_of)s::timestamptz + interval '2 months'
    ) as added
from ohlcv.candle_partitions() as month

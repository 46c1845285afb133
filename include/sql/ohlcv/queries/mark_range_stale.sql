-- Called by aggregator.ohlcv in a rebuild. Has the windows of some tasks in a range built again; answers how many.
select
    coalesce(sum(ohlcv.mark_stale(
        %(symbols)s::text[], frame.timeframe, %(starts_at)s::timestamptz, %(ends_at)s::timestamptz
    )), 0)::integer as marked
from ohlcv.timeframes as frame
where not frame.is_base and frame.timeframe = any(%(timeframes)s::text[])

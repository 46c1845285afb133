-- Called by aggregator.ohlcv.rebuild. Returns the number of tasks with marked windows. Marks the windows of a range to
-- be built again.
select
    coalesce(sum(ohlcv.mark_stale(
        %(symbols)s::text[], frame.timeframe, %(starts_at)s::timestamptz, %(ends_at)s::timestamptz
    )), 0)::integer as marked
from ohlcv.timeframes as frame
where not frame.is_base and frame.timeframe = any(%(timeframes)s::text[])

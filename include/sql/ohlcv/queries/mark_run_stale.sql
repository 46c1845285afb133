-- Called by aggregator.ohlcv.plan, for a cleared run. Returns the number of tasks with marked windows. Marks the
-- windows that ended in the data interval to be built again.
select
    sum(ohlcv.mark_stale(
        null,
        frame.timeframe,
        %(data_interval_start)s::timestamptz - frame.size + interval '1 microsecond',
        %(data_interval_end)s::timestamptz - frame.size + interval '1 microsecond'
    )) as marked
from ohlcv.timeframes as frame
where not frame.is_base

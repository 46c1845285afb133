-- Called by aggregator.ohlcv when a run is cleared. Has the windows that ended in its interval built again.
select
    sum(ohlcv.mark_stale(
        null,
        frame.timeframe,
        %(data_interval_start)s::timestamptz - frame.size + interval '1 microsecond',
        %(data_interval_end)s::timestamptz - frame.size + interval '1 microsecond'
    )) as marked
from ohlcv.timeframes as frame
where not frame.is_base

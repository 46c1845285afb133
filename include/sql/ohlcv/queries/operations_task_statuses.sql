-- Called by aggregator.web.operations.ohlcv. Returns the number of tasks of each status.
select
    status,
    count(*) as tasks
from ohlcv.tasks
where
    (%(search)s = '' or strpos(lower(symbol), lower(%(search)s)) > 0)
    and (%(timeframe)s::text is null or timeframe = %(timeframe)s)
group by status

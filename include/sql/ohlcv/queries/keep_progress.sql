-- Called by aggregator.ohlcv.rebuild, in the transaction of each chunk. Returns nothing. Stores how far the rebuild is
-- with each symbol.
insert into ops.ops_runlog_progress as progress (runlog_id, item, done_until)
select
    runlog.id,
    symbol,
    %(ends_at)s
from ops.ops_runlog as runlog
cross join unnest(%(symbols)s::text[]) as symbol
where runlog.job_name = %(job_name)s and runlog.run_id = %(run_id)s
on conflict (runlog_id, item) do update set done_until = greatest(progress.done_until, excluded.done_until)

-- Called by aggregator.ohlcv.rebuild. Returns how far a rebuild that was retried or cleared is with each symbol.
select
    progress.item as symbol,
    progress.done_until
from ops.ops_runlog as runlog
inner join ops.ops_runlog_progress as progress on runlog.id = progress.runlog_id
where runlog.job_name = %(job_name)s and runlog.run_id = %(run_id)s

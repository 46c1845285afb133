-- Called by aggregator.ohlcv when a rebuild is tried again: which of its chunks are done.
select checkpoint.details ->> 'chunk' as chunk
from ops.ops_runlog as runlog
cross join lateral jsonb_array_elements(runlog.checkpoints) as checkpoint (details)
where runlog.job_name = %(job_name)s and runlog.run_id = %(run_id)s and checkpoint.details ->> 'name' = 'rebuilt'

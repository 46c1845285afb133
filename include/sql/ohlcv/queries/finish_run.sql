-- Called by aggregator.ohlcv at the end of a run. Closes the run log and prunes it; answers how many rows were pruned.
select ops.ops_runlog_prune(%(job_name)s, %(keep)s) as pruned
from ops.ops_runlog_finish(%(job_name)s, %(run_id)s, %(status)s, %(totals)s, %(error)s)

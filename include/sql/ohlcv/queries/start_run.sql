-- Called by aggregator.ohlcv. Opens the run log; answers whether the run had finished before, which makes it a rebuild.
select was_finished
from ops.ops_runlog_start(%(job_name)s, %(env_name)s, %(run_id)s, %(as_of)s)

-- Called by aggregator.ohlcv as a run gets on.
select ops.ops_runlog_checkpoint(%(job_name)s, %(run_id)s, %(name)s, %(details)s)

-- Called by aggregator.ohlcv. Answers how many tasks were left behind by runs that are gone.
select ohlcv.recover_stale_locks(%(seconds)s) as recovered

-- Called by aggregator.ohlcv.aggregate, when the time of a run is over. Returns nothing. Releases the tasks of a shard
-- that have more windows. They are due in the next run.
update ohlcv.tasks
set
    status = 'idle',
    owner = null,
    claimed_at = null
where
    owner = %(run_id)s
    and status = 'running'
    and (%(first)s::text is null or symbol >= %(first)s::text)
    and (%(last)s::text is null or symbol <= %(last)s::text)

-- Called by aggregator.ohlcv when the time of a run is over. Tasks of a shard that have more windows are free for the
-- next run, which finds them due.
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

-- Called by aggregator.ohlcv.aggregate when the time of a run is over, and by aggregator.ohlcv.run at its end. Returns
-- how many of the tasks that the run has claimed in a shard were released. They are due in the next run.
with released as (
    update ohlcv.tasks
    set status = 'idle', owner = null, claimed_at = null, last_error = %(error)s
    where
        owner = %(run_id)s
        and (%(first)s::text is null or symbol >= %(first)s::text)
        and (%(last)s::text is null or symbol <= %(last)s::text)
    returning symbol
)

select count(*) as released from released

-- Called by aggregator.ohlcv.run, at the end of a run. Returns the number of tasks that were released. Releases the
-- tasks that the run has claimed and not finished.
with abandoned as (
    update ohlcv.tasks
    set
        status = 'idle',
        owner = null,
        claimed_at = null,
        last_error = 'Run ' || %(run_id)s || ' failed before this task was done. The next run takes it over.'
    where owner = %(run_id)s
    returning symbol
)

select count(*) as released from abandoned

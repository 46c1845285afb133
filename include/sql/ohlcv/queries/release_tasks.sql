-- Called by aggregator.ohlcv at the end of a run. Tasks that it has claimed and not finished are free for the next run.
with abandoned as (
    update ohlcv.tasks
    set
        status = 'idle',
        owner = null,
        claimed_at = null,
        last_error = 'The run ' || %(run_id)s || ' failed before this task was done; the next one takes it over.'
    where owner = %(run_id)s
    returning symbol
)

select count(*) as released from abandoned

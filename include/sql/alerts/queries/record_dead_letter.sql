-- Called by aggregator.alerts.dead_letters. Writes the letter of a run, or reopens it, and returns the number of open
-- letters.
with recorded as (
    insert into ops.dead_letters as stored (
        type, scheduled_for, error, attempts, dag_id, run_id, failed_task_ids, failed_at
    )
    values (
        %(type)s, %(scheduled_for)s, %(error)s, %(attempts)s, %(dag_id)s, %(run_id)s, %(failed_task_ids)s::text[],
        coalesce(%(failed_at)s::timestamptz, now())
    )
    on conflict (dag_id, run_id) do update
        set
            scheduled_for = coalesce(excluded.scheduled_for, stored.scheduled_for),
            -- The callback of the run comes after that of its task, without the error.
            error = case
                when stored.settled_at is null then coalesce(excluded.error, stored.error)
                else excluded.error
            end,
            attempts = greatest(excluded.attempts, stored.attempts),
            failed_task_ids = case
                when stored.failed_task_ids @> excluded.failed_task_ids then stored.failed_task_ids
                else stored.failed_task_ids || excluded.failed_task_ids
            end,
            failed_at = excluded.failed_at,
            settled_at = null
        -- The callback of the run can come after a later try has resolved the letter.
        where stored.settled_at is null or excluded.error is not null or excluded.failed_at > stored.settled_at
    returning id
),

open_letters as (
    select recorded.id from recorded
    union distinct
    select letter.id from ops.dead_letters as letter
    where letter.settled_at is null
)

select count(*) as depth from open_letters

-- Called by aggregator.alerts.dead_letters. Writes the one letter of a run, or opens it again; answers with how many
-- are open.
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
            -- The run's own callback follows its task's, and knows no error.
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
        -- The run's own callback may come late, when a later try has settled the letter already.
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

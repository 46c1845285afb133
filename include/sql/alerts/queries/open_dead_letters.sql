-- Called by aggregator.alerts.dead_letters. Returns the open letters, all of them or those with the given ids.
select
    id,
    type,
    scheduled_for,
    dag_id,
    run_id,
    attempts,
    error
from ops.dead_letters
where
    settled_at is null
    and (%(ids)s::bigint[] is null or id = any(%(ids)s::bigint[]))
order by failed_at, id

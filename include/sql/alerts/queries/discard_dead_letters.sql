-- Called by aggregator.alerts.dead_letters. Settles letters whose runs shall not be done again.
update ops.dead_letters
set
    settled_at = now(),
    failed_task_ids = '{}'
where
    settled_at is null
    and id = any(%(ids)s::bigint[])
returning id

-- Called by aggregator.alerts.dead_letters. Resolves letters without a re-run, and returns the ids of those that were
-- open.
update ops.dead_letters
set
    settled_at = now(),
    failed_task_ids = '{}'
where
    settled_at is null
    and id = any(%(ids)s::bigint[])
returning id

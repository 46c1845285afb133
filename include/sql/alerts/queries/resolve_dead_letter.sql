-- Called by aggregator.alerts.dead_letters. Removes a task that succeeded from its run's letter, and resolves the
-- letter when no task is left. Returns the letter's id if it was open.
update ops.dead_letters as letter
set
    failed_task_ids = array_remove(letter.failed_task_ids, %(task_id)s),
    settled_at = case when array_remove(letter.failed_task_ids, %(task_id)s) = '{}' then now() end
where
    letter.dag_id = %(dag_id)s
    and letter.run_id = %(run_id)s
    and letter.settled_at is null
returning letter.id

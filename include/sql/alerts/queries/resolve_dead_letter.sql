-- Called by aggregator.alerts.dead_letters. Takes a task that has succeeded off its run's letter, and settles that
-- with the last one. Answers with the letter if one was open.
update ops.dead_letters as letter
set
    failed_task_ids = array_remove(letter.failed_task_ids, %(task_id)s),
    settled_at = case when array_remove(letter.failed_task_ids, %(task_id)s) = '{}' then now() end
where
    letter.dag_id = %(dag_id)s
    and letter.run_id = %(run_id)s
    and letter.settled_at is null
returning letter.id

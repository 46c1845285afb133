-- Called by aggregator.ohlcv.run. Returns the counts of the last plan (null: no plan was completed), how many of its
-- shards are done, whether the run was closed as a success, and the totals of the run. With %(clears)s, only a plan
-- since the run was cleared counts.
select
    runlog.checkpoints -> plan.position::integer - 1 as plan,
    (
        select count(distinct checkpoint.details ->> 'shard')
        from jsonb_array_elements(runlog.checkpoints) with ordinality as checkpoint (details, position)
        where checkpoint.details ->> 'name' = 'aggregated' and checkpoint.position > plan.position
    ) as shards_done,
    runlog.status = 'success' and plan.position is not null as is_closed,
    (
        select
            jsonb_build_object(
                'bars', coalesce(sum(statistic.bars), 0),
                'poor_bars', coalesce(sum(statistic.poor_bars), 0),
                'skipped_windows', coalesce(sum(statistic.skipped_windows), 0),
                'inserted', coalesce(sum(statistic.inserted), 0),
                'updated', coalesce(sum(statistic.updated), 0),
                'unchanged', coalesce(sum(statistic.unchanged), 0),
                'deleted', coalesce(sum(statistic.deleted), 0),
                'failed', count(*) filter (where statistic.outcome = 'hard')
            )
        from ops.ops_runlog_tasks as statistic
        where statistic.runlog_id = runlog.id
    ) as totals
from ops.ops_runlog as runlog
cross join
    lateral (
        select max(checkpoint.position) as position
        from jsonb_array_elements(runlog.checkpoints) with ordinality as checkpoint (details, position)
        where
            checkpoint.details
            @> jsonb_strip_nulls(jsonb_build_object('name', 'planned', 'clears', %(clears)s::integer))
    ) as plan
where runlog.job_name = %(job_name)s and runlog.run_id = %(run_id)s

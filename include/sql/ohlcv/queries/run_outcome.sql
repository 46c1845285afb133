-- Called by aggregator.ohlcv.run, at the end of a run. Returns the number of shards that the last plan has (null: no
-- plan was completed), the number of them that are done, and the totals of the run.
select
    plan.shards as planned,
    (
        select count(distinct checkpoint.details ->> 'shard')
        from jsonb_array_elements(runlog.checkpoints) with ordinality as checkpoint (details, position)
        where checkpoint.details ->> 'name' = 'aggregated' and checkpoint.position > plan.position
    ) as done,
    totals.*
from ops.ops_runlog as runlog
left join lateral (
    select
        (checkpoint.details ->> 'shards')::integer as shards,
        checkpoint.position
    from jsonb_array_elements(runlog.checkpoints) with ordinality as checkpoint (details, position)
    where checkpoint.details ->> 'name' = 'planned'
    order by checkpoint.position desc
    limit 1
) as plan on true
cross join
    lateral (
        select
            coalesce(sum(statistic.bars), 0)::integer as bars,
            coalesce(sum(statistic.poor_bars), 0)::integer as poor_bars,
            coalesce(sum(statistic.skipped_windows), 0)::integer as skipped_windows,
            coalesce(sum(statistic.inserted), 0)::integer as inserted,
            coalesce(sum(statistic.updated), 0)::integer as updated,
            coalesce(sum(statistic.unchanged), 0)::integer as unchanged,
            coalesce(sum(statistic.deleted), 0)::integer as deleted,
            count(*) filter (where statistic.outcome = 'hard')::integer as failed
        from ops.ops_runlog_tasks as statistic
        where statistic.runlog_id = runlog.id
    ) as totals
where runlog.job_name = %(job_name)s and runlog.run_id = %(run_id)s

-- Called by aggregator.web.operations.dags. Returns label, value and unit of what was done by the run %(run_id)s; if it
-- is null, by the runs that started on a range of UTC days.
with runs as (
    select
        count(*) as runs,
        count(*) filter (where status = 'failed') as failed,
        percentile_cont(0.5) within group (order by extract(epoch from finished_at - started_at)) as seconds,
        coalesce(sum((totals ->> 'inserted')::bigint), 0) as inserted,
        coalesce(sum((totals ->> 'updated')::bigint), 0) as updated,
        coalesce(sum((totals ->> 'unchanged')::bigint), 0) as unchanged,
        coalesce(sum((totals ->> 'deleted')::bigint), 0) as deleted,
        coalesce(sum((totals ->> 'poor_bars')::bigint), 0) as poor,
        coalesce(sum((totals ->> 'failed')::bigint), 0) as failed_tasks
    from ops.ops_runlog
    where
        case
            when %(run_id)s::text is not null then run_id = %(run_id)s
            else
                started_at >= %(first_day)s::date::timestamp at time zone 'UTC'
                and started_at < %(until_day)s::date::timestamp at time zone 'UTC'
        end
)

select
    figure.label,
    figure.value,
    figure.unit
from runs
cross join
    lateral (
        values
        (1, 'Runs in the run log', runs.runs, null),
        (2, 'Failed runs', runs.failed, null),
        (3, 'Median duration', round(runs.seconds::numeric, 1), 's'),
        (4, 'New bars', runs.inserted, null),
        (5, 'Corrected bars', runs.updated, null),
        (6, 'Equal bars, not written', runs.unchanged, null),
        (7, 'Deleted bars', runs.deleted, null),
        (8, 'Poor bars', runs.poor, null),
        (9, 'Failed tasks', runs.failed_tasks, null)
    ) as figure (position, label, value, unit)
order by figure.position

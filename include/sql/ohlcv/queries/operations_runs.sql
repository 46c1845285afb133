-- Called by aggregator.web.operations. Returns a page of the run log, the newest run first; the run %(run_id)s only, if
-- it is not null.
with page as (
    select
        *,
        count(*) over () as total
    from ops.ops_runlog
    where %(run_id)s::text is null or run_id = %(run_id)s
    order by id desc
    limit %(limit)s offset %(offset)s
)

select
    page.run_id,
    page.job_name as kind,
    page.status,
    page.as_of,
    page.started_at,
    page.finished_at,
    extract(epoch from page.finished_at - page.started_at) as seconds,
    (plan.details ->> 'due')::bigint as due,
    (plan.details ->> 'claimed')::bigint as claimed,
    (plan.details ->> 'symbols')::bigint as symbols,
    (page.totals ->> 'bars')::bigint as bars,
    (page.totals ->> 'poor_bars')::bigint as poor_bars,
    (page.totals ->> 'inserted')::bigint as inserted,
    (page.totals ->> 'updated')::bigint as updated,
    (page.totals ->> 'unchanged')::bigint as unchanged,
    (page.totals ->> 'deleted')::bigint as deleted,
    (page.totals ->> 'failed')::bigint as failed,
    page.error,
    page.total
from page
left join lateral (
    select checkpoint.details
    from jsonb_array_elements(page.checkpoints) with ordinality as checkpoint (details, position)
    where checkpoint.details ->> 'name' = 'planned'
    order by checkpoint.position desc
    limit 1
) as plan on true
order by page.id desc

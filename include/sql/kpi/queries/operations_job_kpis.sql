-- Called by aggregator.web.operations.kpi. Returns a page of the KPIs of a job, those with problems first.
select
    kpi_id,
    name,
    type,
    status,
    error,
    report_back,
    case when sent_at is null then 0 else retry_count + 1 end as requests,
    retry_count,
    send_number,
    sent_at,
    completed_at,
    updated_at,
    report_back and status = 'completed' as reported,
    count(*) over () as total
from kpi.job_kpis
where trace_id = %(trace_id)s and (%(search)s = '' or strpos(lower(kpi_id || ' ' || name), lower(%(search)s)) > 0)
order by
    array_position(
        array['failed', 'timeout', 'unknown', 'pending', 'sending', 'triggered', 'completed'], status
    ),
    kpi_id
limit %(limit)s offset %(offset)s

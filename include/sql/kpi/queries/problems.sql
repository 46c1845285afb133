-- Called by aggregator.kpi.jobs.summary. Returns the first KPIs of a job that were not sent, failed, timed out, or are
-- unknown and will not be reported.
select
    stored.kpi_id,
    stored.status,
    stored.error
from kpi.job_kpis as stored
where
    stored.trace_id = %(trace_id)s
    and (
        stored.status in ('pending', 'failed', 'timeout')
        or (stored.status = 'unknown' and not stored.report_back)
    )
order by stored.kpi_id
limit %(at_most)s

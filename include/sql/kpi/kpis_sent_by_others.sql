-- Called by aggregator.operators.kpi. KPIs that another job of the same UTC day has sent, and this job has not, each
-- with that job.
select
    other.kpi_id,
    max(other.trace_id) as trace_id
from kpi.job_kpis as other
where
    -- A trace id begins with its day.
    starts_with(other.trace_id, left(%(trace_id)s, 14))
    and other.trace_id <> %(trace_id)s
    and other.status not in ('pending', 'failed')
    and not exists (
        select from kpi.job_kpis as own
        where own.trace_id = %(trace_id)s and own.kpi_id = other.kpi_id and own.status not in ('pending', 'failed')
    )
group by other.kpi_id

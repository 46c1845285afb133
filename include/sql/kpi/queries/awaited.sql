-- Called by aggregator.kpi.jobs.awaited. Returns the number of KPIs of a job whose report is missing and not overdue.
select count(*) as kpis
from kpi.job_kpis as stored
where
    stored.trace_id = %(trace_id)s
    and stored.report_back
    and stored.status in ('triggered', 'unknown')
    and stored.sent_at > now() - %(timeout)s

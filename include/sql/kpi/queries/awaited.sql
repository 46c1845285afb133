-- Called by aggregator.kpi.jobs. How many KPIs of a job n8n has still to report, and has time to.
select count(*) as kpis
from kpi.job_kpis as stored
where
    stored.trace_id = %(trace_id)s
    and stored.report_back
    and stored.status in ('triggered', 'unknown')
    and stored.sent_at > now() - %(timeout)s

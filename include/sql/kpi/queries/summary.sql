-- Called by aggregator.kpi.jobs.summary. Returns the status of a job and the number of its KPIs, one row for each KPI
-- status. A job without KPIs has one row with zero KPIs. A missing job has no row.
select
    job.status,
    stored.status as kpi_status,
    count(stored.kpi_id) as kpis
from kpi.job_records as job
left join kpi.job_kpis as stored on job.trace_id = stored.trace_id
where job.trace_id = %(trace_id)s
group by job.status, stored.status
order by stored.status

-- Called by aggregator.kpi.jobs. The status of a job, in one row for each status that its KPIs have, with how many have
-- it. One row without that if it has no KPIs; none if there is no such job.
select
    job.status,
    stored.status as kpi_status,
    count(stored.kpi_id) as kpis
from kpi.job_records as job
left join kpi.job_kpis as stored on job.trace_id = stored.trace_id
where job.trace_id = %(trace_id)s
group by job.status, stored.status
order by stored.status

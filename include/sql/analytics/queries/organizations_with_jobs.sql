-- Called by analytics_enrichment_metrics when its query fails. Returns the organizations with enrichment jobs in the
-- window, a UTC day.
select distinct organization_id::text
from lead_intelligence.enrichment_jobs
where
    created_at >= (%(data_interval_start)s::timestamptz at time zone 'UTC')
    and created_at < (%(data_interval_end)s::timestamptz at time zone 'UTC')
    and organization_id is not null
order by organization_id

-- Called by analytics_warmup_reset. Result: the verified domains younger than 30 days at the end of the run's day.
select distinct
    organization_id::text,
    domain
from delivery.sending_domains
where
    verified
    and created_at > %(data_interval_end)s::timestamptz - interval '30 days'
    and created_at < %(data_interval_end)s::timestamptz
order by organization_id, domain

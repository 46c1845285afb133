-- Called by aggregator.web.operations.analytics. Returns the distribution of lead scores of each UTC day. Of several
-- organizations, averages and percentiles are weighted with their contacts.
select
    date as day,
    sum(total_contacts) as contacts,
    sum(avg_score * total_contacts) / nullif(sum(total_contacts), 0) as avg,
    min(min_score) as min,
    sum(p50::numeric * total_contacts) / nullif(sum(total_contacts), 0) as p50,
    sum(p90::numeric * total_contacts) / nullif(sum(total_contacts), 0) as p90,
    sum(p95::numeric * total_contacts) / nullif(sum(total_contacts), 0) as p95,
    max(max_score) as max
from analytics.daily_score_distribution
where
    date >= %(first_day)s::date and date < %(until_day)s::date
    and (%(organization_id)s::uuid is null or organization_id = %(organization_id)s)
group by date

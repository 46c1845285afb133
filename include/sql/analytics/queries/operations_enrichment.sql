-- Called by aggregator.web.operations.analytics. Returns the enrichment metrics of each UTC day. Of several
-- organizations, rates and costs are means of the organizations.
select
    date as day,
    sum(total_enriched) as enriched,
    avg(nullif(success_rate, 'NaN')) as success_rate,
    avg(nullif(avg_cost, 'NaN')) as avg_cost,
    avg(nullif(avg_freshness, 'NaN')) as avg_freshness
from analytics.enrichment_metrics
where
    date >= %(first_day)s::date and date < %(until_day)s::date
    and (%(organization_id)s::uuid is null or organization_id = %(organization_id)s)
group by date

-- Called by analytics_enrichment_metrics. How many rows the window, a UTC day, has.
select count(*) as stored
from analytics.enrichment_metrics
where date = (%(data_interval_start)s::timestamptz at time zone 'UTC')::date

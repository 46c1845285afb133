-- Called by analytics_enrichment_metrics. Returns the number of stored rows of the window, a UTC day.
select count(*) as stored
from analytics.enrichment_metrics
where date = (%(data_interval_start)s::timestamptz at time zone 'UTC')::date

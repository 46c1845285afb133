-- Called by aggregator.alerts.freshness. Day of the newest snapshot of lead scores; the next one is due as long as
-- there are scores. Snapshots dated outside 1970 to now are errors and count for nothing.
select
    max(distribution.date)::timestamp at time zone 'UTC' as newest,
    case
        when exists (select from scoring.lead_scores) then max(distribution.date)::timestamp at time zone 'UTC'
    end as waiting_since
from analytics.daily_score_distribution as distribution
where
    distribution.date >= '1970-01-01'
    and distribution.date <= (%(now)s::timestamptz at time zone 'UTC')::date

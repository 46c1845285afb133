-- Called by aggregator.alerts.freshness. Day of the newest snapshot of lead scores; the next one is due as long as
-- there are scores.
select
    max(distribution.date)::timestamp at time zone 'UTC' as newest,
    case
        when exists (select from scoring.lead_scores) then max(distribution.date)::timestamp at time zone 'UTC'
    end as waiting_since
from analytics.daily_score_distribution as distribution

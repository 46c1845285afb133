-- Called by analytics_score_distribution when its query fails. Returns the organizations with lead scores.
select distinct organization_id::text
from scoring.lead_scores
where organization_id is not null
order by organization_id

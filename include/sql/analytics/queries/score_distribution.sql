-- Called by analytics_score_distribution. How the lead scores of each organisation are distributed now, dated with the
-- UTC day that it is now. The run that is due today takes the day's snapshot, and again if it is cleared; a run of any
-- other day takes one only for organisations that have none today.
with today as (
    select
        (now() at time zone 'UTC')::date as date,
        (now() at time zone 'UTC')::date = (%(data_interval_end)s::timestamptz at time zone 'UTC')::date as is_due
),

scores as (
    select
        lead_scores.organization_id,
        lead_scores.total_score,
        today.date
    from scoring.lead_scores
    cross join today
    where
        lead_scores.organization_id is not null
        and lead_scores.total_score is not null
        and (%(groups)s::text[] is null or lead_scores.organization_id::text = any(%(groups)s::text[]))
        and (
            today.is_due
            or not exists (
                select
                from analytics.daily_score_distribution as stored
                where stored.organization_id = lead_scores.organization_id and stored.date = today.date
            )
        )
)

select
    organization_id,
    date,
    round(avg(total_score), 2) as avg_score,
    min(total_score) as min_score,
    max(total_score) as max_score,
    -- percentile_cont is double precision, a hair off a half at times; floor(x + 0.5) is half up below zero as well.
    floor(round(percentile_cont(0.5) within group (order by total_score)::numeric, 4) + 0.5) as p50,
    floor(round(percentile_cont(0.9) within group (order by total_score)::numeric, 4) + 0.5) as p90,
    floor(round(percentile_cont(0.95) within group (order by total_score)::numeric, 4) + 0.5) as p95,
    count(*) as total_contacts
from scores
group by organization_id, date

-- Called by aggregator.web.operations.analytics. Returns the emails of all campaigns in a range of UTC days, one row.
select
    coalesce(sum(sent), 0) as sent,
    coalesce(sum(delivered), 0) as delivered,
    coalesce(sum(opened), 0) as opened,
    coalesce(sum(unique_opened), 0) as unique_opened,
    coalesce(sum(clicked), 0) as clicked,
    coalesce(sum(unique_clicked), 0) as unique_clicked,
    coalesce(sum(bounced), 0) as bounced,
    coalesce(sum(complained), 0) as complained,
    coalesce(sum(unsubscribed), 0) as unsubscribed
from analytics.campaign_daily_stats
where
    date >= %(first_day)s::date and date < %(until_day)s::date
    and (%(organization_id)s::uuid is null or organization_id = %(organization_id)s)

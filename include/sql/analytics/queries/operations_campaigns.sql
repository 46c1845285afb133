-- Called by aggregator.web.operations.analytics. Returns a page of the campaigns with emails in a range of UTC days,
-- those with the most emails first.
select
    campaign_id,
    organization_id,
    sum(sent) as sent,
    sum(delivered) as delivered,
    sum(opened) as opened,
    sum(unique_opened) as unique_opened,
    sum(clicked) as clicked,
    sum(unique_clicked) as unique_clicked,
    sum(bounced) as bounced,
    sum(complained) as complained,
    sum(unsubscribed) as unsubscribed,
    count(*) over () as total
from analytics.campaign_daily_stats
where
    date >= %(first_day)s::date and date < %(until_day)s::date
    and (%(organization_id)s::uuid is null or organization_id = %(organization_id)s)
group by campaign_id, organization_id
order by sum(sent) desc, campaign_id asc, organization_id asc
limit %(limit)s offset %(offset)s

-- Called by aggregator.web.operations.overview. Returns a page of the alerts about %(subjects)s, the newest first.
--   is_open     only alerts that are not resolved, of any age
--   run_id      only alerts about this run; null for all
select
    id,
    kind,
    subject,
    members[1:20] as members,
    cardinality(members) as members_total,
    since,
    raised_at,
    settled_at as resolved_at,
    extract(epoch from coalesce(settled_at, now()) - since) as age_seconds,
    text,
    count(*) over () as total
from ops.alerts
where
    subject = any(%(subjects)s::text[])
    and case
        when %(is_open)s then settled_at is null
        else
            raised_at >= %(first_day)s::date::timestamp at time zone 'UTC'
            and raised_at < %(until_day)s::date::timestamp at time zone 'UTC'
    end
    and (%(run_id)s::text is null or %(run_id)s = any(members))
order by raised_at desc, id desc
limit %(limit)s offset %(offset)s

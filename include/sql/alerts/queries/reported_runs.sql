-- Called by aggregator.alerts.watch. Returns the runs with an alert, and when the newest alert was resolved, null while
-- it is open. Alerts that were resolved before %(since)s are left out.
select
    alert.kind,
    alert.subject,
    member.run_id,
    case when bool_and(alert.settled_at is not null) then max(alert.settled_at) end as settled_at
from ops.alerts as alert
cross join lateral unnest(alert.members) as member (run_id)
where
    alert.kind in ('late', 'failed')
    and (alert.settled_at is null or alert.settled_at >= %(since)s)
group by alert.kind, alert.subject, member.run_id

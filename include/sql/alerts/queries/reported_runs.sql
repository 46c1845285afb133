-- Called by aggregator.alerts.watch. Runs that have an alert, each with the time at which the newest one was settled;
-- null while it is open. Alerts that were settled before %(since)s are left out.
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

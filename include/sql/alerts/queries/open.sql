-- Called by aggregator.alerts.store. Returns the alerts that are not resolved, the oldest first.
select
    id,
    kind,
    subject,
    members,
    since
from ops.alerts
where settled_at is null
order by id

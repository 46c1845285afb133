-- Called by aggregator.alerts.store. The alerts that are not settled.
select
    id,
    kind,
    subject,
    members,
    since
from ops.alerts
where settled_at is null
order by id

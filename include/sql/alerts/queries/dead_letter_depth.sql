-- Called by aggregator.alerts.watch. Returns the number of open dead letters, and when the oldest of them failed.
select
    count(*) as depth,
    min(failed_at) as since
from ops.dead_letters
where settled_at is null

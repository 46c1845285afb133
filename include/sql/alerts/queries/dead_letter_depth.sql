-- Called by aggregator.alerts.watch. How many dead letters are open, and since when the oldest of them is.
select
    count(*) as depth,
    min(failed_at) as since
from ops.dead_letters
where settled_at is null

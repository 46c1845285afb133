-- Called by aggregator.alerts.watch. Returns the time since when runs have alerts. Runs that ended before have none.
select begins_at
from ops.alerts_begin

-- Called by aggregator.alerts.watch. Since when runs have alerts: those that ended before need none.
select begins_at
from ops.alerts_begin

-- Called by aggregator.alerts.watch. Since when this database has alerts: what happened before needs none. Null if the
-- migration was applied by hand.
select min(applied_at) as installed_at
from migrations.history
where
    database = 'ops'
    and name = '0002_alerts'

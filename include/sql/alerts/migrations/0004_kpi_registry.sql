alter table ops.alerts
drop constraint alerts_kind_check,
add constraint alerts_kind_check check (
    kind in ('late', 'failed', 'stale', 'dead_letters', 'task_disabled', 'kpi_registry')
);

create table ops.alerts_begin (
    begins_at timestamptz not null default now(),
    is_only_row boolean primary key default true check (is_only_row)
);

comment on table ops.alerts_begin is
'Since when runs have alerts, one row: the watch raises no alert that is missing for a run that ended before';

insert into ops.alerts_begin default values;

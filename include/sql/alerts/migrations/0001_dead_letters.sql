create schema if not exists ops;

create table ops.dead_letters (
    id bigint generated always as identity primary key,
    type text not null,
    scheduled_for timestamptz,
    correlation_id text not null generated always as (dag_id || '/' || run_id) stored,
    error text,
    attempts integer not null,
    dag_id text not null,
    run_id text not null,
    failed_task_ids text[] not null,
    created_at timestamptz not null default now(),
    failed_at timestamptz not null default now(),
    settled_at timestamptz,
    unique (dag_id, run_id)
);

comment on table ops.dead_letters is 'One row for each run that failed after its retries; open until settled_at';
comment on column ops.dead_letters.type is 'The message that the run stands for, e.g. analytics.aggregate-hourly';
comment on column ops.dead_letters.scheduled_for is 'When the run was due';
comment on column ops.dead_letters.error is 'Without secrets or values of rows; null where a task was killed';
comment on column ops.dead_letters.attempts is 'Tries of the task, those before it was cleared included';
comment on column ops.dead_letters.failed_task_ids is 'Tasks that have to succeed before the letter is settled';

create index dead_letters_open on ops.dead_letters (failed_at) where settled_at is null;

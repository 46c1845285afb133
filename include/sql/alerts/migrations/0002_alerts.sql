create table ops.alerts (
    id bigint generated always as identity primary key,
    kind text not null check (kind in ('late', 'failed', 'stale', 'dead_letters', 'task_disabled')),
    subject text not null,
    members text[] not null,
    since timestamptz not null,
    text text not null,
    raised_at timestamptz not null default now(),
    told_at timestamptz not null default now(),
    settled_at timestamptz
);

comment on table ops.alerts is 'What somebody on call has to know, one row each; open until settled_at';
comment on column ops.alerts.subject is 'The DAG, or the table or list that the alert is about';
comment on column ops.alerts.members is 'Runs of the DAG, or tasks: the alert is open until the last one is well again';
comment on column ops.alerts.text is 'What was told last, without secrets or values of rows';
comment on column ops.alerts.told_at is 'When the last message about it was written, apart from that of its recovery';

create unique index alerts_open on ops.alerts (kind, subject) where settled_at is null;

create table ops.alert_messages (
    id bigint generated always as identity primary key,
    alert_id bigint not null references ops.alerts (id) on delete cascade,
    text text not null,
    created_at timestamptz not null default now(),
    sent_at timestamptz,
    attempts integer not null default 0,
    next_attempt_at timestamptz not null default now(),
    error text
);

comment on table ops.alert_messages is 'What is to be sent to the webhook of alerts, written together with its alert';
comment on column ops.alert_messages.sent_at is 'When the webhook accepted it';
comment on column ops.alert_messages.error is
'Why it did not last time: a status or the class of an error, never its URL';

create index alert_messages_unsent on ops.alert_messages (id) where sent_at is null;
create index alert_messages_alert on ops.alert_messages (alert_id);

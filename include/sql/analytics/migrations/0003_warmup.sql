-- The product owns sending_domains and counts in warmup_counters; where they exist they are adopted as they are.
create schema if not exists delivery;

create table if not exists delivery.sending_domains (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null,
    domain text not null,
    verified boolean not null default false,
    created_at timestamp not null default (now() at time zone 'UTC'),
    unique (organization_id, domain)
);

create table if not exists delivery.warmup_counters (
    organization_id uuid not null,
    domain text not null,
    day date not null,
    sent integer not null default 0 check (sent >= 0),
    primary key (organization_id, domain, day)
);

comment on column delivery.sending_domains.created_at is 'UTC; a domain warms up for 30 days from then on';
comment on table delivery.warmup_counters is
'Mails sent on a UTC day by a domain that warms up; the DAG analytics_warmup_reset removes those of days that are over';

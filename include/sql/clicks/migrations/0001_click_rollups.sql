-- The product owns both tables and reads them; where they exist they are adopted as they are.
create table if not exists public.hires (
    id text primary key
);

create table if not exists public.click_rollups (
    day date not null,
    hire_id text not null references public.hires (id) on delete cascade,
    valid_clicks integer not null,
    invalid_clicks integer not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (day, hire_id)
);

comment on table public.click_rollups is 'Clicks per UTC day and hire, by the DAG click_rollups; billing reads it';

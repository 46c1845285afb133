create schema if not exists ops;
create schema ohlcv;

create table ohlcv.timeframes (
    timeframe text collate "C" primary key,
    size interval not null unique,
    source_timeframe text collate "C" unique references ohlcv.timeframes (timeframe),
    is_base boolean not null
);

insert into ohlcv.timeframes (timeframe, size, source_timeframe, is_base)
values
('1m', '1 minute', null, true),
('5m', '5 minutes', null, true),
('15m', '15 minutes', null, false),
('1h', '1 hour', '15m', false),
('4h', '4 hours', '1h', false),
('1d', '24 hours', '4h', false);

comment on table ohlcv.timeframes is 'Base timeframes of candles, and timeframes of bars; 15m is made of candles';
comment on column ohlcv.timeframes.size is 'In hours: a day would be 23 or 25 of them for a session in local time';

create table ohlcv.assets (
    symbol text collate "C" primary key,
    base_timeframe text collate "C" not null references ohlcv.timeframes (timeframe)
    check (base_timeframe in ('1m', '5m')),
    active boolean not null default true,
    test_active boolean not null default false,
    mandatory boolean not null default false,
    priority integer not null default 100,
    starts_at timestamptz check (isfinite(starts_at))
);

comment on table ohlcv.assets is 'The asset registry: what is aggregated, and from which base candles';
comment on column ohlcv.assets.active is 'Aggregated in every environment';
comment on column ohlcv.assets.test_active is 'Aggregated in DEV and TEST, active or not';
comment on column ohlcv.assets.mandatory is 'Comes first, and is never disabled without a word: it ends as hard_failed';
comment on column ohlcv.assets.priority is 'Lower comes first';
comment on column ohlcv.assets.starts_at is 'No bars before it; null: bars begin with the first candle';

-- Whatever a feed sends is stored, so that ingest does not break; what cannot become a bar is found by the aggregation.
create table ohlcv.candles (
    symbol text collate "C" not null,
    timeframe text collate "C" not null,
    ts timestamptz not null,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume numeric,
    trades integer,
    primary key (symbol, timeframe, ts),
    constraint candles_aligned check (
        case timeframe
            when '1m' then date_bin('1 minute', ts, timestamptz '2000-01-01 00:00+00') = ts
            when '5m' then date_bin('5 minutes', ts, timestamptz '2000-01-01 00:00+00') = ts
            else false
        end
    )
) partition by range (ts);

create table ohlcv.candles_elsewhere partition of ohlcv.candles default;

comment on table ohlcv.candles is
'Base candles, partitioned by UTC month (ohlcv.add_candle_partitions, ohlcv.drop_candle_partitions)';
comment on column ohlcv.candles.ts is 'Start of the candle, a whole step';
comment on column ohlcv.candles.volume is '0 where there was none; null is unknown, and makes no bar';
comment on table ohlcv.candles_elsewhere is 'Empty: it refuses candles for which there is no partition';

create table ohlcv.bars (
    symbol text collate "C" not null,
    timeframe text collate "C" not null,
    ts timestamptz not null,
    open double precision not null,
    high double precision not null,
    low double precision not null,
    close double precision not null,
    volume numeric not null,
    price_volume numeric not null,
    trades bigint,
    candles integer not null,
    expected_candles integer not null,
    derivation_version integer not null,
    vwap double precision generated always as (
        case when volume > 0 then (price_volume / (3 * volume))::double precision end
    ) stored,
    quality smallint generated always as (
        case
            when candles >= expected_candles then 2
            when 5 * candles >= 4 * expected_candles then 1
            when 5 * candles >= 3 * expected_candles then 0
            else -1
        end
    ) stored,
    primary key (symbol, timeframe, ts)
);

create index bars_ts on ohlcv.bars using brin (ts);

comment on table ohlcv.bars is
'Bars of 15m, 1h, 4h and 1d by the DAG ohlcv_aggregation; every window with a candle has one';
comment on column ohlcv.bars.ts is 'Start of the window, aligned to UTC';
comment on column ohlcv.bars.price_volume is 'Sum of (high + low + close) × volume over the base candles';
comment on column ohlcv.bars.vwap is 'Mean of (high + low + close) / 3, weighted with the volume; null without volume';
comment on column ohlcv.bars.candles is 'Base candles it is made of';
comment on column ohlcv.bars.quality is '2 complete, 1 from 80 %, 0 from 60 %, -1 less; 0 and -1 are poor';
comment on column ohlcv.bars.derivation_version is 'AGG_DERIVATION_VERSION when it was built';

create table ohlcv.tasks (
    symbol text collate "C" not null references ohlcv.assets (symbol) on delete cascade,
    timeframe text collate "C" not null references ohlcv.timeframes (timeframe),
    source_timeframe text collate "C" not null references ohlcv.timeframes (timeframe),
    size interval not null,
    delay interval not null default '30 seconds',
    mandatory boolean not null,
    enabled boolean not null default true,
    priority integer not null,
    starts_at timestamptz,
    status text not null default 'idle' check (status in ('idle', 'running', 'disabled', 'hard_failed')),
    owner text,
    claimed_at timestamptz,
    cursor timestamptz,
    built_until timestamptz,
    next_run_at timestamptz,
    last_attempt_at timestamptz,
    last_success_at timestamptz,
    last_error text,
    hard_fails integer not null default 0,
    total_runs bigint not null default 0,
    total_bars bigint not null default 0,
    total_poor_bars bigint not null default 0,
    total_skipped_windows bigint not null default 0,
    primary key (symbol, timeframe),
    check ((status = 'running') = (owner is not null))
) with (fillfactor = 70);

comment on table ohlcv.tasks is 'State of each symbol and timeframe';
comment on column ohlcv.tasks.source_timeframe is 'Of what its bars are made';
comment on column ohlcv.tasks.owner is 'Who has claimed it: the run';
comment on column ohlcv.tasks.cursor is 'Start of the next window; it never moves back';
comment on column ohlcv.tasks.built_until is
'All that was there is built up to here: beyond the cursor where no newer data was known; coarser bars may use it';
comment on column ohlcv.tasks.next_run_at is 'When the next window can be built; null: at once';
comment on column ohlcv.tasks.hard_fails is 'Hard failures in a row; transient ones leave it as it is';

create table ohlcv.candle_changes (
    symbol text collate "C" not null,
    timeframe text collate "C" not null,
    window_start timestamptz not null
);

comment on table ohlcv.candle_changes is
'Windows of 15m whose candles were written: an append-only log by triggers, drained by each run';

-- Without a key: a run takes windows by deleting them first, so what is noted meanwhile has to be a row of its own.
create table ohlcv.stale_windows (
    symbol text collate "C" not null,
    timeframe text collate "C" not null,
    window_start timestamptz not null
);

create index stale_windows_task on ohlcv.stale_windows (symbol, timeframe);

comment on table ohlcv.stale_windows is 'Windows that have to be built again';

create type ohlcv.source_range as (
    symbol text,
    source_timeframe text,
    starts_at timestamptz,
    ends_at timestamptz,
    is_stale boolean
);

create type ohlcv.task_result as (
    symbol text,
    timeframe text,
    new_cursor timestamptz,
    built_until timestamptz,
    bars integer,
    poor_bars integer,
    skipped_windows integer,
    inserted integer,
    updated integer,
    unchanged integer,
    deleted integer,
    bad_window timestamptz,
    outcome text,
    error text
);

create table ops.ops_runlog (
    id bigint generated always as identity primary key,
    job_name text not null,
    env_name text not null,
    run_id text not null,
    as_of timestamptz,
    status text not null default 'running' check (status in ('running', 'success', 'failed')),
    checkpoints jsonb not null default '[]',
    totals jsonb not null default '{}',
    error text,
    started_at timestamptz not null default now(),
    finished_at timestamptz,
    unique (job_name, run_id)
);

create table ops.ops_runlog_tasks (
    runlog_id bigint not null references ops.ops_runlog (id) on delete cascade,
    symbol text collate "C" not null,
    timeframe text collate "C" not null,
    outcome text not null,
    bars integer not null,
    poor_bars integer not null,
    skipped_windows integer not null,
    inserted integer not null,
    updated integer not null,
    unchanged integer not null,
    deleted integer not null,
    error text
);

create index ops_runlog_tasks_runlog on ops.ops_runlog_tasks (runlog_id);

create table ops.ops_issues (
    id bigint generated always as identity primary key,
    job_name text not null,
    run_id text not null,
    symbol text collate "C",
    timeframe text collate "C",
    window_start timestamptz,
    status text not null,
    error text not null,
    created_at timestamptz not null default now()
);

comment on table ops.ops_runlog is 'One row for each run of a job, pruned to a number kept';
comment on table ops.ops_runlog_tasks is 'What a run did for a task; tasks for which it did nothing are left out';
comment on table ops.ops_issues is 'Hard failures of tasks, and what became of the task';
comment on column ops.ops_issues.window_start is 'Of the window that cannot be built, where it is known';

create view ohlcv.frontier as
select
    task.symbol,
    task.timeframe,
    task.cursor,
    newest.ts as newest_source,
    greatest(newest.ts + source.size - task.cursor, interval '0') as lag,
    task.status,
    task.hard_fails,
    task.last_error,
    task.last_success_at
from ohlcv.tasks as task
inner join ohlcv.timeframes as source on task.source_timeframe = source.timeframe
left join lateral (
    (
        select candle.ts
        from ohlcv.candles as candle
        where source.is_base and candle.symbol = task.symbol and candle.timeframe = task.source_timeframe
        order by candle.ts desc
        limit 1
    )
    union all
    (
        select bar.ts
        from ohlcv.bars as bar
        where not source.is_base and bar.symbol = task.symbol and bar.timeframe = task.source_timeframe
        order by bar.ts desc
        limit 1
    )
) as newest on true;

comment on view ohlcv.frontier is 'How far each task is, and how far behind the newest data it is made of';

-- The design of the original database code: a loop over windows with one upsert each, and three calls per task.
create schema original;

create table original.bars (
    symbol text not null,
    timeframe text not null,
    ts timestamptz not null,
    open double precision not null,
    high double precision not null,
    low double precision not null,
    close double precision not null,
    volume numeric not null,
    price_volume numeric not null,
    vwap double precision,
    trades bigint,
    candles integer not null,
    expected_candles integer not null,
    quality smallint not null,
    source_timeframe text not null,
    range double precision,
    body double precision,
    change double precision,
    details jsonb not null default '{}',
    derivation_version integer not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (symbol, timeframe, ts)
);

create index on original.bars (timeframe, ts);

create table original.tasks (
    symbol text not null,
    timeframe text not null,
    size interval not null,
    cursor timestamptz not null,
    status text not null default 'idle',
    last_attempt_at timestamptz,
    last_success_at timestamptz,
    total_bars bigint not null default 0,
    total_poor_bars bigint not null default 0,
    total_skipped_windows bigint not null default 0,
    primary key (symbol, timeframe)
);

create function original.agg_start(p_symbol text, p_timeframe text) returns timestamptz language sql as $$
    update original.tasks set status = 'running', last_attempt_at = now()
    where symbol = p_symbol and timeframe = p_timeframe and status = 'idle'
    returning cursor
$$;

create function original.catchup_aggregation_range(
    p_symbol text, p_timeframe text, p_cursor timestamptz, p_as_of timestamptz,
    out new_cursor timestamptz, out bars integer, out poor_bars integer, out skipped_windows integer
)
language plpgsql
as $$
declare
    size interval := (select size from original.tasks where symbol = p_symbol and timeframe = p_timeframe);
    expected integer := extract(epoch from size) / 60;
    made record;
    score smallint;
begin
    new_cursor := p_cursor;
    bars := 0;
    poor_bars := 0;
    skipped_windows := 0;
    while new_cursor + size + interval '30 seconds' <= p_as_of loop
        select
            count(*) as candles,
            (array_agg(open order by ts))[1] as open,
            max(high) as high,
            min(low) as low,
            (array_agg(close order by ts desc))[1] as close,
            sum(volume) as volume,
            sum((high + low + close)::numeric * volume) as price_volume,
            sum(trades) as trades
        into made
        from ohlcv.candles
        where symbol = p_symbol and timeframe = '1m' and ts >= new_cursor and ts < new_cursor + size;
        if made.candles = 0 then
            exit when not exists (
                select from ohlcv.candles
                where symbol = p_symbol and timeframe = '1m' and ts >= new_cursor + size
            );
            skipped_windows := skipped_windows + 1;
        else
            score := case
                when made.candles >= expected then 2
                when 5 * made.candles >= 4 * expected then 1
                when 5 * made.candles >= 3 * expected then 0
                else -1
            end;
            insert into original.bars (
                symbol, timeframe, ts, open, high, low, close, volume, price_volume, vwap, trades, candles,
                expected_candles, quality, source_timeframe, range, body, change, details, derivation_version
            )
            values (
                p_symbol, p_timeframe, new_cursor, made.open, made.high, made.low, made.close, made.volume,
                made.price_volume, case when made.volume > 0 then made.price_volume / (3 * made.volume) end,
                made.trades, made.candles, expected, score, '1m', made.high - made.low, made.close - made.open,
                made.close / made.open - 1,
                jsonb_build_object('source_rows', made.candles, 'expected_rows', expected), 1
            )
            on conflict (symbol, timeframe, ts) do update
                set
                    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
                    volume = excluded.volume, price_volume = excluded.price_volume, vwap = excluded.vwap,
                    trades = excluded.trades, candles = excluded.candles, quality = excluded.quality,
                    range = excluded.range, body = excluded.body, change = excluded.change,
                    details = excluded.details, updated_at = now();
            bars := bars + 1;
            poor_bars := poor_bars + (score <= 0)::integer;
        end if;
        new_cursor := new_cursor + size;
    end loop;
end
$$;

create function original.agg_finish(
    p_symbol text, p_timeframe text, p_cursor timestamptz, p_bars integer, p_poor_bars integer, p_skipped integer
)
returns void language sql as $$
    update original.tasks set
        status = 'idle', last_success_at = now(), cursor = p_cursor, total_bars = total_bars + p_bars,
        total_poor_bars = total_poor_bars + p_poor_bars,
        total_skipped_windows = total_skipped_windows + p_skipped
    where symbol = p_symbol and timeframe = p_timeframe
$$;

-- Which base timeframe a symbol had when: what can be expected of a window follows from the one in use then, and a
-- correction of its candles has to be taken also after the change.
create table ohlcv.former_base_timeframes (
    symbol text collate "C" not null references ohlcv.assets (symbol) on delete cascade,
    timeframe text collate "C" not null references ohlcv.timeframes (timeframe),
    starts_at timestamptz not null,
    ends_at timestamptz not null,
    primary key (symbol, starts_at),
    check (starts_at < ends_at)
);

comment on table ohlcv.former_base_timeframes is
'Base timeframes that symbols had before the one in ohlcv.assets, by ohlcv.sync_tasks; none for most symbols';
comment on column ohlcv.former_base_timeframes.starts_at is 'First moment it was in use; -infinity for the first one';
comment on column ohlcv.former_base_timeframes.ends_at is 'From here on, the next one or that of the asset is in use';

comment on column ohlcv.bars.candles is
'Base candles it is made of; where their timeframes differ, each counts as many as the finest one has in its time';
comment on column ohlcv.bars.expected_candles is 'How many of its finest base timeframe its window has room for';

alter type ohlcv.source_range
drop attribute expected_candles,
add attribute fallback_timeframe text;

-- Changes made before this migration, as far as bars show them: the first bars of such a symbol expect other candles.
insert into ohlcv.former_base_timeframes (symbol, timeframe, starts_at, ends_at)
select
    asset.symbol,
    former.timeframe,
    timestamptz '-infinity' as starts_at,
    max(bar.ts) + interval '15 minutes' as ends_at
from ohlcv.assets as asset
inner join ohlcv.timeframes as former on former.is_base and asset.base_timeframe <> former.timeframe
cross join
    lateral (
        select oldest.expected_candles
        from ohlcv.bars as oldest
        where oldest.symbol = asset.symbol and oldest.timeframe = '15m'
        order by oldest.ts
        limit 1
    ) as first_bar
inner join ohlcv.bars as bar
    on
        asset.symbol = bar.symbol
        and bar.timeframe = '15m'
        and first_bar.expected_candles = bar.expected_candles
where first_bar.expected_candles * extract(epoch from former.size) = extract(epoch from interval '15 minutes')
group by asset.symbol, former.timeframe;

-- Coarser bars across such a change compare candles of both timeframes with those of one.
with crossed as (
    select
        former.symbol,
        frame.timeframe,
        frame.size,
        date_bin(frame.size, former.ends_at, timestamptz '2000-01-01 00:00+00') as window_start
    from ohlcv.former_base_timeframes as former
    cross join ohlcv.timeframes as frame
    where frame.source_timeframe is not null
)

insert into ohlcv.stale_windows (symbol, timeframe, window_start, ends_at, empties)
select
    crossed.symbol,
    crossed.timeframe,
    crossed.window_start,
    crossed.window_start + crossed.size as ends_at,
    false as empties
from crossed;

-- A rebuild of days is one row for each task, in place of one for each of its windows.
alter table ohlcv.stale_windows
add column ends_at timestamptz,
add column empties boolean not null default true;

update ohlcv.stale_windows as stale
set ends_at = stale.window_start + frame.size
from ohlcv.timeframes as frame
where frame.timeframe = stale.timeframe;

alter table ohlcv.stale_windows alter column ends_at set not null;

comment on table ohlcv.stale_windows is 'Windows that have to be built again; a row is one, or some in a row';
comment on column ohlcv.stale_windows.window_start is 'Of the first window';
comment on column ohlcv.stale_windows.ends_at is 'End of the last window';
comment on column ohlcv.stale_windows.empties is
'Whether a window without source rows loses its bar: after a change, not in a rebuild';

alter type ohlcv.source_range add attribute empties boolean;

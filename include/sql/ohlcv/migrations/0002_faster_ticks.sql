-- A foreign key is checked row by row, which took longer than all the rest of a tick's state. Statistics are written by
-- ohlcv.finish_tasks, which finds the row of their run first, and deleted with it by ops.ops_runlog_prune.
alter table ops.ops_runlog_tasks drop constraint ops_runlog_tasks_runlog_id_fkey;

-- Too few rows for autovacuum ever to look at: without this, PostgreSQL plans for hundreds.
analyze ohlcv.timeframes;

-- Returns a column more, which "create or replace" refuses. Functions are made right after the migrations; where there
-- are none yet, nobody has to be told so.
set local client_min_messages = warning;
drop function if exists ohlcv.build_bars(text, ohlcv.source_range[], integer);

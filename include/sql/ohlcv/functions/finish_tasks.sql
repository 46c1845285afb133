-- Called by ohlcv.agg_finish for one task, and by include/sql/ohlcv/queries/aggregate.sql for many, in the transaction
-- that built their bars: an owner that has lost a task stores nothing.
create or replace function ohlcv.finish_tasks(
    p_job_name text, p_owner text, p_results ohlcv.task_result[], p_max_hard_fails integer
)
returns integer
language plpgsql
volatile
-- The planner expects one running task, and would scan all results for each task.
set enable_nestloop = off
set jit = off
-- As in ohlcv.aggregate.
set plan_cache_mode = force_generic_plan
as $$
declare
    symbols text[] := (select array_agg(given.symbol) from unnest(p_results) as given);
    finished integer;
begin
    with result as (
        select given.*, given.outcome = 'hard' as is_hard
        from unnest(p_results) as given
    ),

    finished_task as (
        update ohlcv.tasks as task
        set
            -- A task with more windows stays claimed: its owner continues in another transaction or releases it.
            status = case
                when result.has_more then 'running'
                when not result.is_hard or task.hard_fails + 1 < p_max_hard_fails then 'idle'
                when task.mandatory then 'hard_failed'
                else 'disabled'
            end,
            owner = case when result.has_more then task.owner end,
            claimed_at = case when result.has_more then clock_timestamp() end,
            cursor = greatest(task.cursor, result.new_cursor),
            built_until = greatest(task.built_until, task.cursor, result.built_until, result.new_cursor),
            next_run_at = greatest(task.cursor, result.new_cursor) + task.size + task.delay,
            last_success_at = case when result.outcome = 'success' then now() else task.last_success_at end,
            last_error = result.error,
            hard_fails = case
                when result.outcome = 'success' then 0
                when result.is_hard then task.hard_fails + 1
                else task.hard_fails
            end,
            total_runs = task.total_runs + 1,
            total_bars = task.total_bars + coalesce(result.bars, 0),
            total_poor_bars = task.total_poor_bars + coalesce(result.poor_bars, 0),
            total_skipped_windows = task.total_skipped_windows + coalesce(result.skipped_windows, 0)
        from result
        where
            task.symbol = result.symbol collate "C"
            and task.timeframe = result.timeframe collate "C"
            and task.symbol = any(symbols)
            and task.owner = p_owner
            and task.status = 'running'
        returning task.symbol, task.timeframe, task.status
    ),

    issue as (
        insert into ops.ops_issues (job_name, run_id, symbol, timeframe, window_start, status, error)
        select
            p_job_name, p_owner, result.symbol, result.timeframe, result.bad_window, finished_task.status, result.error
        from result
        inner join finished_task
            on finished_task.symbol = result.symbol and finished_task.timeframe = result.timeframe
        where result.is_hard
    ),

    statistic as (
        insert into ops.ops_runlog_tasks (
            runlog_id, symbol, timeframe, outcome, bars, poor_bars, skipped_windows, inserted, updated, unchanged,
            deleted, error
        )
        select
            runlog.id, result.symbol, result.timeframe, result.outcome, coalesce(result.bars, 0),
            coalesce(result.poor_bars, 0), coalesce(result.skipped_windows, 0), coalesce(result.inserted, 0),
            coalesce(result.updated, 0), coalesce(result.unchanged, 0), coalesce(result.deleted, 0), result.error
        from result
        inner join ops.ops_runlog as runlog on runlog.job_name = p_job_name and runlog.run_id = p_owner
        where
            result.outcome <> 'success' or result.bars > 0 or result.deleted > 0 or result.skipped_windows > 0
    )

    select count(*) into finished from finished_task;

    if finished <> cardinality(p_results) then
        raise exception '% of % tasks do not belong to % any more: another run took them over. Nothing was stored. '
            'The other run builds them.',
            cardinality(p_results) - finished, cardinality(p_results), p_owner
            using errcode = 'lock_not_available';
    end if;
    return finished;
end
$$;

comment on function ohlcv.finish_tasks is
'Stores the results of tasks and releases those without more windows; returns how many. Raises an error and stores '
'nothing if the owner has lost one of them';

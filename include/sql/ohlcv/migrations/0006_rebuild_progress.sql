-- A rebuild that did not finish continues here, in another try or after a clear. Checkpoints cannot serve: each of a
-- rebuild's thousands of chunks would rewrite all checkpoints before it.
create table ops.ops_runlog_progress (
    runlog_id bigint not null references ops.ops_runlog (id) on delete cascade,
    item text collate "C" not null,
    done_until timestamptz not null,
    primary key (runlog_id, item)
);

comment on table ops.ops_runlog_progress is
'How far a run that can be resumed is with each item (of a rebuild: symbol); emptied when the run succeeds';

-- Whether a task has windows left that the limit of one transaction did not let in: the run builds them in another one.
alter type ohlcv.task_result add attribute has_more boolean;

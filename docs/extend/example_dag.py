"""
### What
Counts the clicks of each country in one UTC day, from the Analytics Engine dataset `clicks` into
`public.clicks_per_country`. Then it starts the n8n workflow `country-report` for each of the countries.

### Window
The UTC day of the run's logical date: the run of 2026-11-15 starts on 2026-11-16 at 02:00.

### Re-run
Safe for the table: equal rows are not rewritten. A cleared run starts the workflows again.

### Deadline
03:00.

### Owner
clicks
"""

from __future__ import annotations

from airflow.sdk import DAG

from aggregator.analytics_engine.operators import AnalyticsEngineOperator
from aggregator.n8n.operators import N8nWebhookOperator
from aggregator.postgres.operators import SqlUpsertOperator
from aggregator.wiring import dag_args

QUERY = """
select formatDateTime(timestamp, '%%Y-%%m-%%d') as day, blob5 as country, sum(_sample_interval) as clicks
from clicks
where timestamp >= %(data_interval_start)s and timestamp < %(data_interval_end)s and blob5 != ''
group by day, country
order by clicks desc
limit 20
format JSON
"""

with DAG(**dag_args("clicks_per_country"), doc_md=__doc__, max_active_runs=1):
    count_clicks = AnalyticsEngineOperator(task_id="count_clicks", sql=QUERY)
    store_counts = SqlUpsertOperator(
        task_id="store_counts",
        conn_id="clicks_db",
        table="public.clicks_per_country",
        key=["day", "country"],
        rows=count_clicks.output,
        touch=["updated_at"],
    )
    send_reports = N8nWebhookOperator.partial(
        task_id="send_reports",
        url="https://n8n.example.com/webhook/country-report",
        map_index_template="{{ task.payload['country'] }}",
    ).expand(payload=count_clicks.output)
    store_counts >> send_reports

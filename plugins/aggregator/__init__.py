"""Everything behind the DAGs: hooks, operators, timetable, rules."""

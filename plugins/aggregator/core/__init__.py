"""What every package uses: errors, retries, settings, params, the timetable. Imports no other package."""

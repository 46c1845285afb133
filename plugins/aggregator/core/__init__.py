"""Shared by all packages: errors, retries, settings, params, the timetable, the catalog. Imports no other package."""

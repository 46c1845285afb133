"""Cloudflare Analytics Engine: hook, SQL dialect, results, and the operators that query it."""

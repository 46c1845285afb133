"""n8n: the hook that calls webhooks, the addresses it may call, and its operator."""

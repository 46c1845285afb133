"""n8n: the hook and the operator that start workflows through webhooks.

``hook`` sends the request, ``addresses`` guards which URLs it may call, and ``responses`` judges the response.
"""

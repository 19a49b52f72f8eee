"""Results and signals over OPC UA, for controllers and whatever else of a plant speaks it.

What is needed of asyncua is imported when a server is first started.

Order of imports: settings, certificates, channels, receipts, values, confirming, nodes, signals, server,
events, control, client.
"""

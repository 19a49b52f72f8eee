"""Who may be told of results besides a webhook. What a kind needs is imported when one is made.

Order of imports: situation, mqtt, files, rows, csv_files, parquet, pictures, alerts.
"""

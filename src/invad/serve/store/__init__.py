"""What the service keeps: rows in SQLite or PostgreSQL, images and maps in files named by their content.

Order of imports: schema, prepared, migrations, leases, database, files, objects, results, reviews, stations,
taken, shadows, drifts, trends, keys, passwords, users, retention, outbox, backup, judged.
"""

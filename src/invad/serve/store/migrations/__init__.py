"""The steps from each database that ever was to that of `schema`; Alembic runs them.

Order of imports: env, versions.
"""

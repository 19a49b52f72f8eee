"""The page of the service, for people: drawn here, made alive by htmx and one small module for each page.

Nothing comes from another host. Looking needs no script; sending pictures, judging and changing things do.

Order of imports: words, rendering, frame, reference, entry, live, history, part, review, limits, drift,
region, models, settings, site.
"""

"""The tables. Times are milliseconds since 1970, UTC; what the migrations make is held to this by a test."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

WAITING = "verdict IS NULL AND (decision <> 'good' OR audit)"
"""Results that people should look at."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

model_version = Table(
    "model_version",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("model", Text, nullable=False),
    Column("added", BigInteger, nullable=False),
    Column("content", Text, nullable=False),  # JSON: what it was made from, and how it was proved
    Column("given", BigInteger),  # when a start was last told to use it
    Column("retired", BigInteger),
)

station = Table(
    "station",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("created", BigInteger, nullable=False),
    Column("active", ForeignKey("model_version.hash"), nullable=False),
)

taken = Table(
    "taken",
    metadata,
    Column("station", ForeignKey("station.name"), primary_key=True),
    Column("path", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("time_ns", BigInteger, nullable=False),
)
"""Files of watched folders that are done with and stay where they are."""

shadowing = Table(
    "shadowing",
    metadata,
    Column("station", ForeignKey("station.name"), primary_key=True),
    Column("model_version", ForeignKey("model_version.hash"), nullable=False),
    Column("since", BigInteger, nullable=False),
)
"""A version that scores the parts of a station, too, and decides nothing."""

activation = Table(
    "activation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("station", ForeignKey("station.name"), nullable=False),
    Column("model_version", ForeignKey("model_version.hash"), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("reason", Text),
    Index(None, "station", "id"),
)
"""Which version began to judge when; only ever added to."""

calibration = Table(
    "calibration",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("station", ForeignKey("station.name"), nullable=False),
    Column("category", Text, nullable=False),  # "" is that over all categories
    Column("revision", Integer, nullable=False),
    Column("model_version", ForeignKey("model_version.hash"), nullable=False),
    Column("content", Text, nullable=False),  # JSON of scores, peaks, rates and groups
    Column("made_from", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    UniqueConstraint("station", "category", "revision"),
)

in_force = Table(
    "in_force",
    metadata,
    Column("station", ForeignKey("station.name"), primary_key=True),
    Column("category", Text, primary_key=True),
    Column("model_version", ForeignKey("model_version.hash"), primary_key=True),
    Column("calibration", ForeignKey("calibration.id"), nullable=False),
    Column("since", BigInteger, nullable=False),
)

result = Table(
    "result",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("station", ForeignKey("station.name"), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("part_id", Text),
    Column("lot", Text),
    Column("category", Text),
    Column("source", String(16), nullable=False),
    Column("request_id", Text),
    Column("image_sha256", String(64), nullable=False),
    Column("image_kept", Boolean, nullable=False),
    Column("map_sha256", String(64)),
    Column("map_kept", Boolean, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("model_version", ForeignKey("model_version.hash"), nullable=False),
    Column("calibration", Integer, nullable=False),  # the revision
    Column("score", Double, nullable=False),
    Column("peak", Double, nullable=False),
    Column("p_value", Double, nullable=False),
    Column("decision", String(6), nullable=False),
    Column("review_limit", Double, nullable=False),
    Column("bad_limit", Double, nullable=False),
    Column("map_review_limit", Double, nullable=False),
    Column("map_bad_limit", Double, nullable=False),
    Column("ms_queue", Double, nullable=False),
    Column("ms_decode", Double, nullable=False),
    Column("ms_infer", Double, nullable=False),
    Column("ms_store", Double, nullable=False),
    Column("audit", Boolean, nullable=False, server_default=false()),  # a good part that people look at, too
    Column("late", Boolean, nullable=False, server_default=false()),  # than the deadline of the station
    Column("grey", Double, nullable=False, server_default=text("0")),
    Column("clipped", Double, nullable=False, server_default=text("0")),
    Column("sharpness", Double, nullable=False, server_default=text("0")),
    Column("members", Text),  # JSON, of a part of several pictures: what each showed, and what was wrong
    Column("verdict", String(6)),  # the latest of its reviews; the decision stays
    UniqueConstraint("station", "request_id"),
    # Ids rise with storing even where a clock was set back, so pages go by id.
    Index(None, "station", "id"),
    Index(None, "decision", "id"),
    Index(None, "part_id"),
    Index(None, "lot"),
    Index(None, "time"),
    Index(None, "image_sha256"),
    Index(None, "map_sha256"),
)
Index(
    "ix_result_kept",
    result.c.decision,
    result.c.time,
    sqlite_where=text("image_kept = 1"),
    postgresql_where=text("image_kept"),
)

Index(
    "ix_result_waiting",
    result.c.station,
    result.c.id,
    sqlite_where=text(WAITING),
    postgresql_where=text(WAITING),
)

Index(
    "ix_result_verdict",
    result.c.verdict,
    result.c.id,
    sqlite_where=text("verdict IS NOT NULL"),
    postgresql_where=text("verdict IS NOT NULL"),
)

review = Table(
    "review",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("result", ForeignKey("result.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("time", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("verdict", String(6), nullable=False),
    Column("defect", Text),
    Column("note", Text),
    Column("mask", Text),  # JSON: runs of pixels that are not and are defective, by rows
)
"""Only ever added to; the latest of a result counts."""

claim = Table(
    "claim",
    metadata,
    Column("result", ForeignKey("result.id", ondelete="CASCADE"), primary_key=True),
    Column("who", Text, nullable=False),
    Column("until", BigInteger, nullable=False),
)
"""Who looks at a part now, so that two people do not."""

region = Table(
    "region",
    metadata,
    Column("result", ForeignKey("result.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("x", Integer, nullable=False),
    Column("y", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("area", Integer, nullable=False),
    Column("peak", Double, nullable=False),
    Column("mean", Double),  # NULL, as all below, of results from before these were measured
    Column("centroid_x", Double),
    Column("centroid_y", Double),
    Column("length_px", Double),
    Column("width_px", Double),
    Column("cell_px", Double),
)

shadow = Table(
    "shadow",
    metadata,
    Column("result", ForeignKey("result.id", ondelete="CASCADE"), primary_key=True),
    Column("model_version", ForeignKey("model_version.hash"), primary_key=True),
    Column("station", ForeignKey("station.name"), nullable=False),
    Column("calibration", Integer, nullable=False),  # the revision
    Column("score", Double, nullable=False),
    Column("p_value", Double, nullable=False),
    Column("decision", String(6), nullable=False),
    Column("ms_infer", Double, nullable=False),
    Index(None, "station", "model_version", "result"),
)
"""What a shadowing version says of a part that the active one has answered."""

outbox = Table(
    "outbox",
    metadata,
    Column("result", ForeignKey("result.id", ondelete="CASCADE"), primary_key=True),
    Column("sink", String(160), primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("next_try", BigInteger, nullable=False),
    Index(None, "sink", "result"),
)
"""What a sink has not taken yet; a row goes when it has."""

expired_file = Table(
    "expired_file",
    metadata,
    Column("kind", String(8), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("removed", BigInteger),
)
"""Files that may be deleted, or were a short while ago; no others ever are."""

drift = Table(
    "drift",
    metadata,
    Column("station", ForeignKey("station.name"), primary_key=True),
    Column("category", Text, primary_key=True),
    Column("calibration", ForeignKey("calibration.id"), nullable=False),
    Column("started", String(26), nullable=False),  # parts with larger ids are watched
    Column("last", String(26), nullable=False),  # up to here the state goes
    Column("seed", BigInteger, nullable=False),
    Column("every", Integer, nullable=False),
    Column("state", Text, nullable=False),  # JSON
)
"""How the scores of each station and category go on; the reference follows from the results."""

drift_point = Table(
    "drift_point",
    metadata,
    Column("station", ForeignKey("station.name"), primary_key=True),
    Column("category", Text, primary_key=True),
    Column("result", String(26), primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("log10_evidence", Double, nullable=False),
    Column("effect", Double, nullable=False),
    Column("alarm", Boolean, nullable=False),
)
"""The chart: one point for some parts."""

api_key = Table(
    "api_key",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # separated by blanks
    Column("stations", Text),  # separated by blanks; NULL is all of them
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("last_used", BigInteger),
    Column("revoked", BigInteger),
)

page_user = Table(
    "page_user",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("password", Text, nullable=False),  # scrypt, its parameters, salt and digest
    Column("role", String(16), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("last_login", BigInteger),
)
"""People who use the page."""

page_session = Table(
    "page_session",
    metadata,
    Column("sha256", String(64), primary_key=True),  # of what the cookie holds
    Column("user", ForeignKey("page_user.name", ondelete="CASCADE")),
    Column("api_key", ForeignKey("api_key.id")),  # of whoever came with a key in place of a name
    Column("created", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
)
"""Who is logged in; a row goes with its user, when somebody logs out, and when it has expired."""

login_failure = Table(
    "login_failure",
    metadata,
    Column("of", String(80), primary_key=True),  # a name or an address
    Column("failures", Integer, nullable=False),
    Column("last", BigInteger, nullable=False),
)
"""Wrong passwords since the last right one; in the database, so that a restart forgets none."""

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("content", Text, nullable=False),  # JSON
)

"""Figures for Prometheus; each service has its own registry."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

STEPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
P_VALUES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


class RunMetrics:
    """What is counted wherever images are judged; the names are those of docs/service.md."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.parts = Counter(
            "invad_parts",
            "Parts that were judged, and stored if results are kept.",
            ["station", "decision", "source", "version"],
            registry=registry,
        )
        self.errors = Counter("invad_errors", "What failed.", ["kind"], registry=registry)
        self.rejected = Counter(
            "invad_rejected", "Requests that were not taken.", ["reason"], registry=registry
        )
        self.stage = Histogram(
            "invad_stage_seconds", "Time of a part in a stage.", ["stage"], buckets=STEPS, registry=registry
        )
        self.batch = Histogram(
            "invad_batch_parts", "Parts of one run.", buckets=(1, 2, 4, 8, 16, 32), registry=registry
        )
        self.p_value = Histogram(
            "invad_p_value", "P-values of parts.", ["station"], buckets=P_VALUES, registry=registry
        )
        self.queue = Gauge("invad_queue_parts", "Parts under way.", registry=registry)
        self.ready = Gauge("invad_ready", "1 when parts are taken.", registry=registry)
        self.lease = Gauge(
            "invad_lease", "1 for what this one of several services does alone.", ["name"], registry=registry
        )
        self.model = Gauge(
            "invad_model", "1 for the model that judges.", ["model", "hash", "engine"], registry=registry
        )

    def text(self) -> bytes:
        """In the text form of Prometheus."""
        return generate_latest(self.registry)


class Metrics(RunMetrics):
    """What is counted where results are kept, too."""

    def __init__(self) -> None:
        super().__init__()
        registry = self.registry
        self.shadow = Counter(
            "invad_shadow_parts",
            "Parts that a shadowing version scored, too; change: its decision beside that of the active one.",
            ["station", "version", "change"],
            registry=registry,
        )
        self.shadow_dropped = Counter(
            "invad_shadow_dropped", "Parts that it did not score.", ["station", "reason"], registry=registry
        )
        self.free = Gauge("invad_disk_free_bytes", "Free bytes of the disk.", registry=registry)
        where = ["station", "category"]
        self.drift_evidence = Gauge(
            "invad_drift_log10_evidence", "Evidence of a change.", where, registry=registry
        )
        self.drift_effect = Gauge("invad_drift_effect", "0.5 without drift.", where, registry=registry)
        self.drift_alarm = Gauge("invad_drift_alarm", "1 from an alarm on.", where, registry=registry)
        self.review = Gauge("invad_review_pending", "Parts without a verdict.", registry=registry)
        self.review_age = Gauge("invad_review_age_seconds", "Age of the oldest of them.", registry=registry)
        self.pending = Gauge(
            "invad_outbox_pending", "Results that a sink has not taken.", ["sink"], registry=registry
        )
        self.oldest = Gauge(
            "invad_outbox_oldest_seconds", "Age of the oldest of them.", ["sink"], registry=registry
        )
        self.sink_up = Gauge("invad_sink_up", "1 while a sink takes results.", ["sink"], registry=registry)
        self.source_files = Counter(
            "invad_source_files", "Images that a source took.", ["station", "outcome"], registry=registry
        )
        self.source_waiting = Gauge(
            "invad_source_waiting", "Images that are there and not answered.", ["station"], registry=registry
        )
        self.skipped = Counter(
            "invad_frames_skipped",
            "Frames that were left out because newer ones came.",
            ["station"],
            registry=registry,
        )
        self.source_up = Gauge(
            "invad_source_up", "1 while a source can take images.", ["station"], registry=registry
        )
        self.late = Counter(
            "invad_late", "Parts later than the deadline of their station.", ["station"], registry=registry
        )
        self.told = Counter(
            "invad_told",
            "Answers that a controller acknowledged; answer: ok, ng, review or error.",
            ["station", "answer"],
            registry=registry,
        )
        self.untold = Counter(
            "invad_untold",
            "Results of a station with a controller that it was not told of, because it had not asked or a "
            "restart came between.",
            ["station"],
            registry=registry,
        )
        self.controller_up = Gauge(
            "invad_controller_up", "1 while a controller does its part.", ["station"], registry=registry
        )

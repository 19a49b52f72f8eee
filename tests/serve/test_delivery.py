"""From the outbox to sinks: at least once, in the order of storing, also after an outage."""

import pytest

from greys import Greys, png
from invad.serve import Options, Service
from invad.serve.delivery import Route, Sink, Unreachable, Unwanted, pause
from invad.serve.plant.lineup import read_lineup
from invad.serve.plant.plant import Plant
from invad.serve.webhook import Webhook
from waiting import waits


class Book(Sink):
    """Writes down what it is given, while it can be reached."""

    kind, place = "book", "here"

    def __init__(self):
        self.seen, self.is_there, self.unwanted = [], True, set()

    def deliver(self, results):
        for one in results:
            if not self.is_there:
                raise Unreachable("the book is closed")
            if one.part_id in self.unwanted:
                raise Unwanted("no room for this one")
            self.seen.append(one.part_id)
            yield one.id


@pytest.fixture
def service(tmp_path):
    with Service(Greys(), tmp_path / "line", options=Options(reserve=0)) as service:
        yield service


def inspect(service, *names):
    for name in names:
        service.inspect(png(5), part_id=name)


def test_a_sink_that_was_away_gets_everything_in_order(service):
    book = Book()
    service.deliveries.add(Route(name="book"), book)
    inspect(service, "a")
    waits(lambda: book.seen == ["a"])
    book.is_there = False
    inspect(service, "b", "c", "d")
    waits(lambda: service.deliveries.states()["book"].problem == "the book is closed")
    state = service.deliveries.states()["book"]
    assert (state.waiting, state.delivered, state.kind, state.place) == (3, 1, "book", "here")
    service.refresh_metrics()
    said = service.metrics.text().decode()
    assert 'invad_outbox_pending{sink="book"} 3.0' in said
    assert 'invad_sink_up{sink="book"} 0.0' in said
    book.is_there = True
    inspect(service, "e")
    waits(lambda: len(book.seen) == 5)
    assert book.seen == ["a", "b", "c", "d", "e"]
    waits(lambda: service.deliveries.states()["book"].waiting == 0)
    waits(lambda: service.deliveries.states()["book"].problem is None)


def test_one_result_that_is_not_wanted_does_not_hold_up_the_others(service, monkeypatch):
    monkeypatch.setattr("invad.serve.delivery.pause", lambda attempts: 0.01)
    book = Book()
    book.unwanted = {"b"}
    service.deliveries.add(Route(name="book"), book)
    inspect(service, "a", "b", "c")
    waits(lambda: "c" in book.seen)
    assert "b" not in book.seen
    assert service.deliveries.states()["book"].problem is None
    book.unwanted = set()
    waits(lambda: book.seen[-1] == "b")


def test_pauses_grow_to_an_hour():
    assert [pause(tries) for tries in (0, 1, 5, 50)] == [1, 2, 32, 3600]


def test_a_fault_of_a_sink_does_not_end_its_deliveries(service):
    book = Book()
    book.is_there = None  # what a fault looks like: an exception that nobody expects
    deliver, book.deliver = book.deliver, lambda results: 1 / 0
    service.deliveries.add(Route(name="book"), book)
    inspect(service, "a")
    waits(lambda: "division" in (service.deliveries.states()["book"].problem or ""))
    book.is_there, book.deliver = True, deliver
    waits(lambda: book.seen == ["a"])


def test_sinks_get_the_results_of_their_station_and_decisions(service):
    all_of_them, flagged, elsewhere = Book(), Book(), Book()
    service.deliveries.add(Route(name="all"), all_of_them)
    service.deliveries.add(Route(name="flagged", decisions=("review", "bad")), flagged)
    service.deliveries.add(Route(name="other", station="other"), elsewhere)
    service.inspect(png(5), part_id="good")
    service.inspect(png(255), part_id="bad")
    waits(lambda: all_of_them.seen == ["good", "bad"] and flagged.seen == ["bad"])
    assert elsewhere.seen == []


def test_what_waits_for_a_name_is_delivered_when_the_name_is_back(service):
    book = Book()
    book.is_there = False
    service.deliveries.add(Route(name="book"), book)
    inspect(service, "a")
    service.deliveries.remove("book")
    inspect(service, "b")  # nobody is told of this one
    service.refresh_metrics()
    assert 'invad_outbox_pending{sink="book"} 1.0' in service.metrics.text().decode()
    later = Book()
    service.deliveries.add(Route(name="book"), later)
    waits(lambda: later.seen == ["a"])


def test_a_receiver_that_is_not_there_is_named_before_a_result_comes():
    assert list(Webhook("http://127.0.0.1:1/results", "").problems()) == [
        "http://127.0.0.1:1/results: Connection refused; check the address, and whether the receiver runs"
    ]


STATION = '[[station]]\nname = "a"\nmodel = "m"\n'
OUTPUT = '[[station.output]]\nkind = "webhook"\nurl = "http://127.0.0.1:1/{}"\n'


@pytest.fixture
def plant(tmp_path):
    """plant(text): it, of a `line.toml`, beside a service; not started."""
    started = []

    def make(text):
        (tmp_path / "line.toml").write_text(text)
        names = [one.name for one in read_lineup(tmp_path / "line.toml").station]
        started.append(Service(dict.fromkeys(names, Greys()), tmp_path / "line", options=Options(reserve=0)))
        return Plant(started[-1], tmp_path / "line.toml")

    yield make
    for one in started:
        one.close()


def test_a_file_of_stations_adds_and_takes_outputs(plant, monkeypatch):
    monkeypatch.setattr(Service, "take_models", lambda service, models: None)
    made = plant(STATION + OUTPUT.format("one"))
    made.start()
    service = made.service
    service.inspect(png(5), station="a")
    waits(lambda: service.deliveries.states("a")["a/webhook"].problem)
    (state,) = service.deliveries.states("a").values()
    assert (state.place, state.waiting) == ("http://127.0.0.1:1/one", 1)
    assert state.problem == "http://127.0.0.1:1/one: Connection refused"
    made.path.write_text(STATION + OUTPUT.format("two") + OUTPUT.format("three") + 'name = "other"\n')
    made.reload()
    places = {name: one.place for name, one in service.deliveries.states("a").items()}
    assert places == {"a/webhook": "http://127.0.0.1:1/two", "a/other": "http://127.0.0.1:1/three"}
    made.path.write_text(STATION)
    made.reload()
    assert service.deliveries.states("a") == {}
    made.close()


def test_a_secret_that_is_not_there_is_named_before_anything_starts(plant):
    with pytest.raises(Exception, match="the environment has no variable NOT_THERE; set it before"):
        plant(STATION + OUTPUT.format("one") + 'secret_variable = "NOT_THERE"\n')

"""The handshake as a value: every sequence of what may happen, as far as it leads to something new."""

from dataclasses import replace

import pytest

from invad.serve.plant import cycle as rules
from invad.serve.plant.cycle import ERRORS, Cycle, Outcome, Terms
from invad.serve.records import Milliseconds, Picture, Result


def result(part_id, decision="good", late=False):
    return Result(
        schema=1,
        id=f"id-{part_id}-{decision}-{late}",
        station="press",
        time="2026-01-01T00:00:00.000Z",
        part_id=part_id,
        lot=None,
        category=None,
        source="http",
        request_id=None,
        image_sha256="0",
        width=1,
        height=1,
        model="m",
        model_version="0",
        calibration=1,
        score=0.0,
        peak=0.0,
        p_value=0.5,
        decision=decision,
        review_limit=1.0,
        bad_limit=2.0,
        regions=(),
        image_kept=False,
        map_kept=False,
        audit=False,
        late=late,
        verdict=None,
        picture=Picture(grey=0, clipped=0, sharpness=0),
        ms=Milliseconds(queue=0, decode=0, infer=0, store=0),
    )


PARTS = {
    (n, decision): result(str(n), decision) for n in range(300) for decision in ("good", "review", "bad")
}
STREAM = [result(None, decision, late) for decision in ("good", "review", "bad") for late in (False, True)]


def steps(cycle, terms, now):
    """Everything that may happen next: a name, and what comes of it."""
    yield "trigger", rules.triggered(cycle, terms, now, "n")
    yield "acknowledge", rules.acknowledged(cycle, now)
    for trigger in (False, True):
        for acknowledge in (False, True):
            bits = {"trigger": trigger, "acknowledge": acknowledge}
            yield f"levels {bits}", rules.levels(cycle, terms, now, "n", **bits)
            yield f"found {bits}", rules.found(cycle, now, trigger, acknowledge)
    for number in (cycle.number - 1, cycle.number):
        for decision in ("good", "review", "bad"):
            if number > 0:
                outcome = Outcome(result=PARTS[number, decision])
                yield f"{decision} {number}", rules.answered(cycle, now, number, outcome)
        yield f"error {number}", rules.answered(cycle, now, number, Outcome(error="engine"))
    for fault in ("none", "source"):
        yield fault, replace(cycle, fault=fault)
    if (claimed := rules.claimed(cycle, now)) is not None:
        yield "claimed", claimed
    if not terms.triggered:
        for one in STREAM:
            yield f"shows {one.decision}", rules.presented(cycle, now, one)
    yield "later", rules.passed(cycle, terms, now + 1)


def kind(cycle, now):
    """What states have in common that go on alike."""
    shown = cycle.outcome.result
    known = None if shown is None else (shown.part_id == str(cycle.number), shown.decision, shown.late)
    ahead = tuple(max(0, one - now) for one in (cycle.due or now, cycle.quiet, cycle.since + 2))
    bits = (cycle.trigger, cycle.acknowledge, cycle.fault, cycle.has_part, cycle.due is None)
    return cycle.phase, known, cycle.outcome.error, bits, ahead


def walk(terms):
    """All states that can be reached, with the signals, and each step between them."""
    begin = (Cycle(), 0)
    seen, open_ = {kind(*begin)}, [begin]
    while open_:
        cycle, now = open_.pop()
        for name, after in steps(cycle, terms, now):
            then = now + 1 if name == "later" else now
            yield cycle, name, after, then
            if kind(after, then) not in seen and after.number < 250:
                seen.add(kind(after, then))
                open_.append((after, then))


TERMS = [
    Terms(triggered=triggered, deadline=deadline, review=review, hold=hold, own_parts=own)
    for triggered in (True, False)
    for deadline in (None, 2)
    for review in ("ng", "ok", "review")
    for hold in (None, 2)
    for own in (True, False)
]


@pytest.mark.parametrize("terms", TERMS, ids=str)
def test_no_sequence_shows_ok_without_a_good_result_of_that_very_part(terms):
    phases = set()
    for before, name, after, _ in walk(terms):
        told = rules.signals(after, terms)
        phases.add(after.phase)
        where = (before, name, after)
        assert told.ok + told.ng + told.review <= 1, where
        assert not (told.ready and told.results_ready), where
        assert told.ready + told.busy + told.results_ready <= 1, where
        if told.results_ready:
            assert told.ok or told.ng or told.review, where
        else:
            assert not any((told.ok, told.review, told.result)), where
        if told.error:
            assert told.ng, where
            assert told.error_code, where
        else:
            assert told.error_code == 0, where
        if told.ok or told.review:
            allowed = {"good"} if terms.review == "ng" else {"good", "review"}
            assert told.result.decision in allowed, where
            assert not told.result.late, where
            if told.ok and terms.review == "review":
                assert told.result.decision == "good", where
            if terms.triggered:
                assert told.result.part_id == str(after.number), where
    assert phases == {"idle", "busy", "shown", "clearing"} - ({"busy"} if not terms.triggered else set())


def test_a_station_comes_back_from_everything():
    """Whatever happened, a controller that resets its bits and acknowledges gets a ready station."""
    terms = Terms(deadline=2, own_parts=False)
    for _, _, after, now in walk(terms):
        cycle = replace(after, fault="none")
        for wait in range(8):
            cycle = rules.levels(cycle, terms, now + wait, "n", trigger=False, acknowledge=False)
            cycle = rules.acknowledged(rules.passed(cycle, terms, now + wait), now + wait)
        assert rules.signals(cycle, terms).ready, after


def go(*events, terms=None):
    """The state after some functions of it."""
    terms = terms or Terms(deadline=10)
    cycle = Cycle()
    for event in events:
        cycle = event(cycle, terms)
    return cycle, rules.signals(cycle, terms)


def trigger(now, part_id="a"):
    return lambda cycle, terms: rules.triggered(cycle, terms, now, "name", part_id, "lot")


def answer(now, number, **outcome):
    return lambda cycle, terms: rules.answered(cycle, now, number, Outcome(**outcome))


def acknowledge(now):
    return lambda cycle, terms: rules.acknowledged(cycle, now)


def test_one_cycle_as_the_field_knows_it():
    assert go()[1].ready
    told = go(trigger(0))[1]
    assert (told.ready, told.busy, told.part_id, told.lot) == (False, True, "a", "lot")
    good = PARTS[1, "good"]
    told = go(trigger(0), answer(1, 1, result=good))[1]
    assert (told.results_ready, told.ok, told.ng, told.result, told.counter) == (True, True, False, good, 1)
    told = go(trigger(0), answer(1, 1, result=good), acknowledge(2))[1]
    assert (told.ready, told.results_ready, told.ok, told.counter) == (True, False, False, 1)


def test_a_late_part_is_ng_at_its_deadline_and_never_answers_the_next_trigger():
    def at(now):
        return lambda cycle, terms: rules.passed(cycle, terms, now)

    assert go(trigger(0), at(9))[1].busy
    told = go(trigger(0), at(10))[1]
    assert (told.ng, told.error_code) == (True, ERRORS["late"][0])
    late = answer(11, 1, result=PARTS[1, "good"])
    assert go(trigger(0), at(10), late)[1] == told
    assert go(trigger(0), at(10), acknowledge(10), trigger(10, "b"), late)[1].busy
    # The clock thread may be a moment behind the answer.
    told = go(trigger(0), answer(10, 1, result=PARTS[1, "good"]))[1]
    assert (told.ok, told.ng, told.error_code) == (False, True, 1)


def test_a_trigger_before_the_station_is_ready_is_ng_for_both_parts():
    for events in (
        [trigger(0)],
        [trigger(0), answer(1, 1, result=PARTS[1, "good"])],
        [lambda cycle, terms: rules.found(cycle, 0, True, False)],
    ):
        told = go(*events, trigger(2, "b"))[1]
        assert (told.ng, told.ok, told.error_code, told.part_id) == (True, False, ERRORS["busy"][0], "b")
    told = go(trigger(0), trigger(1, "b"), answer(2, 1, result=PARTS[1, "good"]))[1]
    assert told.ng
    assert not told.ok


def test_ready_waits_until_the_controller_has_reset_its_bits():
    terms = Terms(deadline=10)

    def bits(now, trigger, acknowledge):
        return lambda cycle, terms: rules.levels(
            cycle, terms, now, "name", trigger=trigger, acknowledge=acknowledge
        )

    events = [bits(0, True, False), answer(1, 1, result=PARTS[1, "good"]), bits(2, True, True)]
    for more in ([], [bits(3, True, False)], [bits(3, False, True)]):
        told = go(*events, *more, terms=terms)[1]
        assert not (told.ready)
        assert not (told.results_ready)
        assert not (told.ok)
    assert go(*events, bits(3, False, False), terms=terms)[1].ready
    # A bit that stays set is no second trigger.
    assert go(bits(0, True, False), bits(1, True, False), terms=terms)[0].number == 1


def test_a_picture_that_may_be_the_late_one_is_waited_for_before_the_next_trigger():
    """Where a trigger waits for the next part that comes, a late one would else answer the next trigger."""
    terms = Terms(deadline=10, own_parts=False)
    late = [trigger(0), lambda cycle, terms: rules.passed(cycle, terms, 10), acknowledge(11)]
    assert not go(*late, terms=terms)[1].ready
    assert go(*late, lambda cycle, terms: rules.claimed(cycle, 12), terms=terms)[1].ready
    assert go(*late, lambda cycle, terms: rules.passed(cycle, terms, 20), terms=terms)[1].ready


def test_error_numbers_are_told_apart():
    numbers = [number for number, _ in ERRORS.values()]
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) < 2**16

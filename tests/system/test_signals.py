import os
import signal
import threading

import pytest

from invad.system.signals import answering, is_unanswered, keeping


@pytest.mark.alone
def test_a_signal_is_answered_inside_the_block_alone():
    before, heard = signal.getsignal(signal.SIGINT), []
    with answering([signal.SIGINT], lambda: heard.append(1)):
        assert not is_unanswered(signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert (heard, signal.getsignal(signal.SIGINT)) == ([1], before)


def test_handlers_come_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), answering([signal.SIGTERM], lambda: None):
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) == before


def test_another_thread_is_left_alone():
    before, inside = signal.getsignal(signal.SIGINT), []

    def run():
        with answering([signal.SIGINT], lambda: None):
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert inside == [before]


def test_a_library_keeps_no_signal():
    before = signal.getsignal(signal.SIGTERM)
    with keeping(signal.SIGTERM):
        signal.signal(signal.SIGTERM, lambda *_: None)
    assert signal.getsignal(signal.SIGTERM) is before

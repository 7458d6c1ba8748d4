"""What libraries say while a file is read."""

import logging
import os
import threading
import warnings

import pytest
from PIL import Image

from samtune.data.quiet import quiet


@pytest.fixture
def messages():
    """What loggers say."""
    said, handler = [], logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    yield said
    logging.getLogger().removeHandler(handler)


def test_loggers_say_nothing_while_a_file_is_read_and_are_as_before_after_it(messages):
    logger, part = logging.getLogger("PIL"), logging.getLogger("PIL.SomePlugin")
    before = [logger.level, logger.disabled, logger.propagate, list(logger.handlers)]
    with quiet():
        for each in (logger, part):
            each.critical("while reading")
    for each in (logger, part):
        each.critical("after it")
    assert messages == ["after it"] * 2
    assert [logger.level, logger.disabled, logger.propagate, logger.handlers] == before


def test_a_thread_that_reads_takes_no_warning_from_another_one_and_leaves_none_behind():
    reading, enough = threading.Event(), threading.Event()

    def read():
        with quiet():
            reading.set()
            enough.wait(60)
            warnings.warn("of the reader", stacklevel=1)

    thread = threading.Thread(target=read)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        thread.start()
        assert reading.wait(60)
        with warnings.catch_warnings():  # overlaps with the end of the reading
            warnings.warn("during it", stacklevel=1)
            enough.set()
            thread.join(60)
        warnings.warn("after it", stacklevel=1)
        with quiet():
            warnings.simplefilter("error")
            with quiet():  # the reader's is the first filter again
                warnings.warn("of the reader", stacklevel=1)
    assert [str(each.message) for each in told] == ["during it", "after it"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_is_forked_while_another_thread_reads_is_not_silent():
    reading, enough = threading.Event(), threading.Event()

    def read():
        with quiet():
            reading.set()
            enough.wait(60)

    thread = threading.Thread(target=read)
    thread.start()
    assert reading.wait(60)
    child = os.fork()
    if not child:
        os._exit(0 if Image.MAX_IMAGE_PIXELS and not logging.getLogger("PIL").disabled else 1)
    enough.set()
    thread.join(60)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

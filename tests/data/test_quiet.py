"""What libraries say while a file is read."""

import logging
import os
import threading
import warnings
from contextlib import contextmanager

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


@contextmanager
def another_thread_that_reads(last=lambda: None):
    """Meanwhile a thread reads; it ends at the end, or when what is yielded is called."""
    reading, enough = threading.Event(), threading.Event()

    def read():
        with quiet():
            reading.set()
            enough.wait(60)
            last()

    def end():
        enough.set()
        thread.join(60)

    thread = threading.Thread(target=read)
    thread.start()
    assert reading.wait(60)
    try:
        yield end
    finally:
        end()


def test_a_thread_that_reads_takes_no_warning_from_another_one_and_leaves_none_behind():
    def warn_last():
        warnings.warn("of the reader", stacklevel=1)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with another_thread_that_reads(warn_last) as end_of_reading:
            with warnings.catch_warnings():  # overlaps with the end of the reading
                warnings.warn("during it", stacklevel=1)
                end_of_reading()
        warnings.warn("after it", stacklevel=1)
        with quiet():
            warnings.simplefilter("error")
            with quiet():  # the reader's is the first filter again
                warnings.warn("of the reader", stacklevel=1)
    assert [str(each.message) for each in told] == ["during it", "after it"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_is_forked_while_another_thread_reads_is_not_silent():
    with another_thread_that_reads():
        child = os.fork()
        if not child:
            os._exit(0 if Image.MAX_IMAGE_PIXELS and not logging.getLogger("PIL").disabled else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

"""Metrics are added up beside the model: in order, with their errors, and with the same numbers."""

from threading import Event

import pytest
import torch

from samtune.evaluation.beside import Beside

CPU = torch.device("cpu")


def test_a_piece_goes_on_while_the_caller_does_and_the_next_one_waits_for_it():
    done, begun, may_end = [], Event(), Event()

    def first():
        begun.set()
        assert may_end.wait(60)
        done.append(1)

    with Beside(CPU) as beside:
        beside.do(first)
        assert begun.wait(60) and done == []  # it runs, and the caller is here
        may_end.set()
        beside.do(lambda: done.append(2))
        assert done[0] == 1
    assert done == [1, 2]


@pytest.mark.parametrize("at_once", [False, True])
def test_an_error_reaches_the_caller_before_the_next_piece(at_once):
    done = []
    with pytest.raises(KeyError, match="x"), Beside(CPU, at_once) as beside:
        beside.do(lambda: {}["x"])
        beside.do(lambda: done.append(2))
    assert done == []
    with pytest.raises(KeyError), Beside(CPU, at_once) as beside:
        beside.do(lambda: {}["x"])
    with pytest.raises(OSError), Beside(CPU) as beside:
        beside.do(lambda: done.append(1))
        raise OSError  # the caller's own error goes first, after the piece is done
    assert done == [1]

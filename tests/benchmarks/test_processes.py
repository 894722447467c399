"""What benchmarks ask of the operating system for the processes that they start."""

import os
import subprocess
import sys

import pytest

from benchmarks.processes import going_first

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setscheduler"), reason="this system has no scheduling policies"
)


def test_who_goes_first_does_so_for_the_block_only() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        before = os.sched_getscheduler(child.pid)
        with going_first(child.pid) as is_allowed:
            during = os.sched_getscheduler(child.pid)
        assert during == (os.SCHED_FIFO if is_allowed else before)
        assert os.sched_getscheduler(child.pid) == before
        child.communicate(b"\n")


def test_who_ends_meanwhile_is_not_missed() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with going_first(child.pid):
        child.communicate(b"\n")
    assert child.returncode == 0

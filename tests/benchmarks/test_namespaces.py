"""Where no network can be emulated, the benchmark says why and what helps."""

import os

import pytest

from benchmarks.namespaces import NetworkUnavailable, Node, require_network


def test_another_user_than_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NetworkUnavailable, match=r"need root.*run it with sudo"):
        require_network()


def test_other_systems_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(NetworkUnavailable, match="run this on Linux"):
        require_network()


def test_a_missing_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NetworkUnavailable, match="install iproute2"):
        require_network()


def test_a_node_runs_a_command_in_its_namespace() -> None:
    command = Node("corolla-1-relay", "198.18.0.1").command
    assert command[:4] == ("ip", "netns", "exec", "corolla-1-relay")

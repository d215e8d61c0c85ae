"""Who may share memory."""

from __future__ import annotations

import sys

import pytest

from convlens.server.shared import offered


@pytest.mark.skipif(sys.platform != "linux", reason="no other system has it")
@pytest.mark.parametrize("peer", ["ipv4:127.0.0.1:5", "ipv6:[::1]:5", "ipv6:%5B::1%5D:5", "unix:", "unix:/run/x"])
def test_callers_on_this_machine_may(peer):
    assert offered(peer)


@pytest.mark.parametrize("peer", ["ipv4:10.0.0.1:5", "ipv4:192.168.127.0:5", "ipv6:[2001:db8::1]:5", "", "vsock:1:2"])
def test_others_may_not(peer):
    assert not offered(peer)

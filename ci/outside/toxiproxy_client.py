"""What toxiproxy-python can do, asked of the server on its default port, with the helpers of its own test folder.

Run by ci/outside/toxiproxy: the client's sdist is on the path; the helpers are read from beside the client.
"""

import importlib.util
import pathlib
import socket
import time

import pytest
import toxiproxy
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists
from toxiproxy.utils import can_connect_to

_helper = pathlib.Path(toxiproxy.__file__).parents[1] / "test" / "test_helper.py"
_spec = importlib.util.spec_from_file_location("test_helper", _helper)
helper = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(helper)

SERVER = toxiproxy.Toxiproxy()


@pytest.fixture(autouse=True)
def no_proxies():
    SERVER.destroy_all()
    yield
    SERVER.destroy_all()


def listens(proxy):
    host, port = proxy.listen.split(":")
    return can_connect_to(host, int(port))


def seconds_through(proxy):
    host, port = proxy.listen.split(":")
    return helper.connect_to_proxy(host, port)


def test_the_server_runs_and_tells_its_version():
    assert SERVER.running() is True
    assert b'"version"' in SERVER.version()


def test_a_server_that_does_not_run_has_no_version():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        SERVER.update_api_consumer("127.0.0.1", free.getsockname()[1])
    try:
        assert SERVER.running() is False
        assert SERVER.version() is None
    finally:
        SERVER.update_api_consumer("127.0.0.1", 8474)


def test_a_created_proxy_is_found_with_its_real_port():
    created = SERVER.create(upstream="localhost:9", name="one")
    found = SERVER.get_proxy("one")
    assert (found.upstream, found.enabled, found.listen) == ("localhost:9", True, created.listen)
    assert listens(found)


def test_a_proxy_that_does_not_exist_is_none():
    assert SERVER.get_proxy("none") is None


def test_a_disabled_proxy_keeps_its_address_as_asked():
    created = SERVER.create(upstream="localhost:9", name="one", listen="127.0.0.1:43215", enabled=False)
    assert (created.listen, created.enabled) == ("127.0.0.1:43215", False)
    assert not listens(created)


def test_a_name_is_taken_once():
    SERVER.create(upstream="localhost:9", name="one")
    with pytest.raises(ProxyExists):
        SERVER.create(upstream="localhost:9", name="one")


def test_conflicts_and_missing_things_raise_what_the_status_says():
    proxy = SERVER.create(upstream="localhost:9", name="one")
    proxy.add_toxic(name="t", type="latency")
    with pytest.raises(ProxyExists):
        proxy.add_toxic(name="t", type="latency")
    with pytest.raises(InvalidToxic):
        proxy.add_toxic(type="gravity")
    with pytest.raises(InvalidToxic):
        proxy.add_toxic(type="latency", stream="sideways")
    with pytest.raises(NotFound):
        proxy.destroy_toxic("none")
    proxy.destroy()
    with pytest.raises(NotFound):
        proxy.toxics()


def test_disabling_and_enabling_keep_toxics_and_the_port():
    proxy = SERVER.create(upstream="localhost:9", name="one")
    proxy.add_toxic(type="latency", attributes={"latency": 123})
    before = proxy.listen
    with proxy.down():
        assert proxy.enabled is False
        assert not listens(proxy)
    assert listens(proxy)
    again = SERVER.get_proxy("one")
    assert again.listen == before
    assert again.get_toxic("latency_downstream").attributes["latency"] == 123


def test_destroying_frees_the_port_and_the_name():
    proxy = SERVER.create(upstream="localhost:9", name="one")
    assert SERVER.destroy(proxy) is True
    assert not listens(proxy)
    assert SERVER.proxies() == {}
    assert SERVER.destroy("one") is False


def test_reset_enables_and_removes_toxics():
    proxy = SERVER.create(upstream="localhost:9", name="one")
    proxy.disable()
    proxy.add_toxic(type="latency", attributes={"latency": 123})
    assert SERVER.reset() is True
    assert listens(proxy)
    assert proxy.toxics() == {}


def test_populate_creates_what_is_new_and_moves_what_differs():
    made = SERVER.populate([
        {"name": "one", "upstream": "localhost:9", "listen": "127.0.0.1:0"},
        {"name": "two", "upstream": "localhost:9", "listen": "127.0.0.1:0"},
    ])
    assert [proxy.name for proxy in made] == ["one", "two"]
    assert all(listens(proxy) for proxy in made)
    standing = {"name": "one", "upstream": "localhost:9", "listen": made[0].listen}
    moved = {"name": "two", "upstream": "localhost:10", "listen": made[1].listen}
    again = SERVER.populate([standing, moved])
    assert [(proxy.name, proxy.upstream) for proxy in again] == [("two", "localhost:10")]


def test_toxics_show_defaults_and_what_was_asked():
    proxy = SERVER.create(upstream="localhost:9", name="one")
    proxy.add_toxic(type="slicer", stream="upstream", toxicity=0.2, attributes={"average_size": 10, "delay": 5})
    proxy.add_toxic(type="limit_data", name="few")
    toxics = proxy.toxics()
    assert set(toxics) == {"slicer_upstream", "few"}
    slicer = toxics["slicer_upstream"]
    assert (slicer.stream, slicer.toxicity) == ("upstream", 0.2)
    assert slicer.attributes == {"average_size": 10, "size_variation": 0, "delay": 5}
    assert (toxics["few"].stream, toxics["few"].attributes) == ("downstream", {"bytes": 0})


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
def test_latency_delays_an_answer_and_its_removal_does_not(stream):
    with helper.tcp_server() as port:
        proxy = SERVER.create(upstream=f"localhost:{port}", name="server")
        assert seconds_through(proxy) < 0.5
        proxy.add_toxic(type="latency", stream=stream, attributes={"latency": 600})
        assert 0.599 <= seconds_through(proxy) < 2.5
        proxy.destroy_toxic(f"latency_{stream}")
        assert seconds_through(proxy) < 0.5


def test_latencies_of_both_directions_add_up():
    with helper.tcp_server() as port:
        proxy = SERVER.create(upstream=f"localhost:{port}", name="server")
        proxy.add_toxic(type="latency", stream="upstream", attributes={"latency": 300})
        proxy.add_toxic(type="latency", stream="downstream", attributes={"latency": 300})
        assert 0.599 <= seconds_through(proxy) < 2.5


def test_reset_peer_is_a_reset_for_a_client_in_python():
    with helper.tcp_server() as port:
        proxy = SERVER.create(upstream=f"localhost:{port}", name="server")
        proxy.add_toxic(type="reset_peer", stream="upstream", attributes={"timeout": 300})
        start = time.monotonic()
        with pytest.raises(ConnectionResetError):
            seconds_through(proxy)
        assert 0.299 <= time.monotonic() - start < 2.5

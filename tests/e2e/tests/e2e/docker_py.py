"""The SDK of Docker for Python, as its users use it. Arguments: endpoint, image with a busybox."""

import sys
import threading

import docker
from docker.errors import APIError, ContainerError, NotFound

endpoint, image = sys.argv[1:3]
client = docker.DockerClient(base_url=endpoint, version="auto", timeout=120)
QUIET = dict(network_mode="none")


def same(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


def facts():
    assert client.ping()
    same(client.version()["Os"], "linux")
    assert client.info()["Driver"]
    assert image in client.images.get(image).tags


def running_to_the_end():
    same(client.containers.run(image, ["echo", "hi"], remove=True, **QUIET), b"hi\n")
    try:
        client.containers.run(image, ["sh", "-c", "echo no >&2; exit 3"], remove=True, **QUIET)
        raise AssertionError("it should have failed")
    except ContainerError as error:
        same(error.exit_status, 3)
        assert b"no" in error.stderr, error.stderr
    try:
        client.containers.run("no/such/image:1", "true")
        raise AssertionError("it should not be there")
    except (NotFound, APIError):
        pass


def frames(sock, wanted):
    """Payload of frames until so many bytes are there."""
    data = b""
    while len(data) < wanted:
        header = b""
        while len(header) < 8:
            header += sock.recv(8 - len(header))
        left = int.from_bytes(header[4:], "big")
        while left:
            piece = sock.recv(left)
            data += piece
            left -= len(piece)
    return data


def input_and_output():
    container = client.containers.create(image, ["cat"], stdin_open=True, name="py-cat", **QUIET)
    try:
        attached = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        container.start()
        sock = attached._sock
        sock.sendall(b"through and back\n")
        same(frames(sock, 17), b"through and back\n")
        attached.close()
        same(container.logs(), b"through and back\n")
    finally:
        container.remove(force=True)


def beside():
    container = client.containers.run(image, ["sh", "-c", "while :; do sleep 1; done"], detach=True, name="py-exec", **QUIET)
    try:
        code, (out, err) = container.exec_run(
            ["sh", "-c", "echo $A; pwd; echo err >&2; exit 4"], demux=True, environment={"A": "1"}, workdir="/etc"
        )
        same((code, out, err), (4, b"1\n/etc\n", b"err\n"))
        code, stream = container.exec_run(["sh", "-c", "echo a; echo b"], stream=True)
        same(b"".join(stream), b"a\nb\n")
        code, output = container.exec_run("no-such-program")
        same(code, 127)
        code, output = container.exec_run(["busybox", "tty"], tty=True)
        assert output.startswith(b"/dev/pts/"), output
    finally:
        container.remove(force=True)


def a_life():
    container = client.containers.create(
        image, ["sh", "-c", "i=0; while :; do echo line $i; i=$((i+1)); sleep 1; done"], name="py-life", labels={"py": "1"}, **QUIET
    )
    try:
        same(container.status, "created")
        container.start()
        container.reload()
        same(container.status, "running")
        first = next(iter(container.logs(stream=True, follow=True)))
        same(first, b"line 0\n")
        container.pause()
        container.reload()
        same(container.status, "paused")
        container.unpause()
        container.rename("py-renamed")
        same(client.containers.get("py-renamed").id, container.id)
        same([one.id for one in client.containers.list(filters={"label": "py=1"})], [container.id])
        waited = []
        waiter = threading.Thread(target=lambda: waited.append(container.wait(timeout=120)))
        waiter.start()
        container.kill("KILL")
        waiter.join(120)
        same(waited[0]["StatusCode"], 137)
        container.reload()
        same((container.status, container.attrs["State"]["ExitCode"]), ("exited", 137))
        try:
            client.containers.create(image, "true", name="py-renamed")
            raise AssertionError("the name is in use")
        except APIError as error:
            same(error.response.status_code, 409)
    finally:
        container.remove(force=True)
    try:
        client.containers.get("py-renamed")
        raise AssertionError("it should be gone")
    except NotFound:
        pass


for step in (facts, running_to_the_end, input_and_output, beside, a_life):
    step()
    print(step.__name__)

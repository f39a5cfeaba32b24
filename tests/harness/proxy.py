"""A TCP relay before the server, whose connections can be cut as a network does it."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Self

__all__ = ["Relay"]

_AT_ONCE = struct.pack("ii", 1, 0)  # closing sends a reset instead of a farewell


class Relay:
    """Relays between its own port and another one of this machine, until it is told not to."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        self.requests = 0
        """What clients have sent so far, in reads."""
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._clients: set[socket.socket] = set()
        self._is_down = self._loses_answers = False
        self._bytes_per_s = float("inf")
        self._marked = b""
        self._unheard: set[socket.socket] = set()
        self._answer_lost = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def cut(self) -> int:
        """Reset every connection; gives how many there were. New ones are let through."""
        with self._lock:
            open_sockets, self._open = self._open, set()
        for one in open_sockets:
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        return len(open_sockets) // 2

    def go_down(self) -> None:
        """Reset every connection, and each new one too."""
        self._is_down = True
        self.cut()

    def lose_answers(self) -> None:
        """Let requests through and reset the connection instead of carrying the answer back."""
        self._loses_answers = True

    def slow_down(self, bytes_per_s: float) -> None:
        """Carry the requests of each connection no faster than that."""
        self._bytes_per_s = bytes_per_s

    def say(self, portion: bytes) -> None:
        """Send to every client what the server did not."""
        with self._lock:
            clients = self._open & self._clients
        for client in clients:
            client.sendall(portion)

    def lose_answer_to(self, words: bytes) -> threading.Event:
        """Let the next request that holds these words through, and cut its connection when its answer comes.

        Gives an event that tells that it came. All other connections stay; a request is one read.
        """
        self._marked = words
        return self._answer_lost

    def through(self, url: str) -> str:
        """The address of the server, by way of this relay."""
        return url.replace(f":{self._target}/", f":{self.port}/")

    def lead_to(self, port: int) -> None:
        """Carry new connections to another port; the open ones stay where they are."""
        self._target = port

    def come_back(self) -> None:
        """Let everything through again."""
        self._is_down = self._loses_answers = False

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            if self._is_down:
                inner.close()
                continue
            try:
                outer = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                inner.close()
                continue
            with self._lock:
                self._open |= {inner, outer}
                self._clients.add(inner)
            self._spawn(self._pump, inner, outer)
            self._spawn(self._pump, outer, inner, is_answer=True)

    def _pump(self, source: socket.socket, sink: socket.socket, *, is_answer: bool = False) -> None:
        with contextlib.suppress(OSError):
            while portion := source.recv(65536):
                if is_answer and self._is_lost(source):
                    break
                if not is_answer:
                    time.sleep(len(portion) / self._bytes_per_s)
                with self._lock:
                    self.requests += not is_answer
                if not is_answer and self._marked and self._marked in portion:
                    self._marked = b""
                    self._unheard.add(sink)
                sink.sendall(portion)
        with self._lock:
            self._open -= {source, sink}
            self._clients -= {source, sink}
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _is_lost(self, server: socket.socket) -> bool:
        if server in self._unheard:
            self._answer_lost.set()
        return self._loses_answers or server in self._unheard

    def _spawn(self, target: Callable[..., None], *arguments: object, **options: object) -> None:
        thread = threading.Thread(target=target, args=arguments, kwargs=options, daemon=True)
        thread.start()
        self._threads.append(thread)

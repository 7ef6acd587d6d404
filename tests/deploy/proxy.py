"""An HTTP proxy that knows CONNECT, if it likes."""

from __future__ import annotations

import select
import socket
import threading


class Proxy:
    """Listens on a free port of this machine.

    Args:
        status: what it answers to CONNECT.
    """

    def __init__(self, status: str = "200 Connection established") -> None:
        self._status, self.asked = status, [""]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self) -> None:
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._one, args=(inner,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _one(self, inner: socket.socket) -> None:
        with inner:
            head = b""
            while b"\r\n\r\n" not in head:
                head += inner.recv(4096)
            self.asked.append(head.decode())
            inner.sendall(f"HTTP/1.1 {self._status}\r\n\r\n".encode())
            if self._status.startswith("200"):
                host, _, port = head.split()[1].decode().rpartition(":")
                with socket.create_connection((host, int(port))) as outer:
                    self._carry(inner, outer)

    def _carry(self, inner: socket.socket, outer: socket.socket) -> None:
        try:
            while True:
                for ready in select.select([inner, outer], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    (outer if ready is inner else inner).sendall(data)
        except OSError:
            return

    def close(self) -> None:
        """Take no more connections, and wait for the ends of those that there are."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

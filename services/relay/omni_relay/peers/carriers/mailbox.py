"""One end of UCX messages that go straight from and to memory, wait without spinning, and end at a known moment."""

from __future__ import annotations

import ctypes
import os
import select
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ctypes import byref, c_int, c_size_t, c_void_p
from math import ceil
from time import monotonic, sleep

from omni_common.arena.memory import address_of
from omni_relay.peers.carriers import ucp

# A flush then means: sent. An endpoint's own also waits for words that the peer says only while it receives.
_FLUSH: Mapping[str, str] = {"FLUSH_WORKER_EPS": "n"}

# Seconds that UCX may take to wind up what was given up, before it is destroyed with what still hangs in it.
_WINDING_UP = 1.0
_PAUSE = 0.001

# What is sent fails by itself when the peer is lost. Without a handler UCX prints that it has none.
_UNTOLD = ucp.ErrorHandler(lambda *_: None)


class UcxFailed(Exception):
    """What did not work: a sentence without its end."""


class Mailbox:
    """A context and a worker of UCX's own for one connection: when they are gone, nothing of it is left that touches
    memory. That costs 3 ms and ten descriptors.

    One thread at a time sends and receives, any may close. Everything but `close` raises UcxFailed, after which the
    mailbox is closed and memory that it was lent is not touched any more.
    """

    def __init__(self) -> None:
        try:
            self._ucp = ucp.library()
        except OSError as error:
            raise UcxFailed(f"UCX's library cannot be loaded: {error}") from error
        self._in_use = threading.Lock()
        self._end = threading.Lock()
        self._ended = False
        self._request: int | None = None
        self._context, self._worker, self._endpoint = c_void_p(), c_void_p(), c_void_p()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._start()
        except UcxFailed:
            self.close()
            raise

    def _start(self) -> None:
        config = c_void_p()
        self._check(self._ucp.ucp_config_read(None, None, byref(config)), "UCX cannot read its options")
        try:
            for name, value in {**ucp.OPTIONS, **_FLUSH}.items():
                self._check(self._ucp.ucp_config_modify(config, name.encode(), value.encode()), f"UCX has no {name}")
            wanted = ucp.Params(field_mask=ucp.PARAM_FEATURES, features=ucp.FEATURE_TAG | ucp.FEATURE_WAKEUP)
            status = self._ucp.ucp_init_version(*ucp.API, byref(wanted), config, byref(self._context))
        finally:
            self._ucp.ucp_config_release(config)
        self._check(status, "UCX does not start")
        serialized = ucp.WorkerParams(field_mask=ucp.WORKER_THREAD_MODE, thread_mode=ucp.SERIALIZED)
        self._check(
            self._ucp.ucp_worker_create(self._context, byref(serialized), byref(self._worker)), "UCX finds no device"
        )
        events = c_int()
        self._check(self._ucp.ucp_worker_get_efd(self._worker, byref(events)), "UCX cannot wait for events")
        self._events = events.value
        self._poll = select.poll()
        self._poll.register(self._events, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    @property
    def library(self) -> str:
        """UCX and its version, as far as two that differ in it may not understand each other."""
        major, minor, *_ = self._ucp.ucp_get_version_string().decode().split(".")
        return f"UCX {major}.{minor}"

    @property
    def address(self) -> bytes:
        """Where mailboxes of other processes find this one."""
        with self._using():
            address, length = c_void_p(), c_size_t()
            status = self._ucp.ucp_worker_get_address(self._worker, byref(address), byref(length))
            self._check(status, "UCX knows no address of its own")
            try:
                return ctypes.string_at(address, length.value)
            finally:
                self._ucp.ucp_worker_release_address(self._worker, address)

    def connect(self, address: bytes) -> None:
        """`send` goes there from now on. That nobody is there is found out by the first of them."""
        with self._using():
            to = ucp.EndpointParams(
                field_mask=ucp.EP_ADDRESS | ucp.EP_ERROR_MODE | ucp.EP_ERROR_HANDLER,
                address=address,
                err_mode=ucp.ERRORS_OF_PEER,
                err_handler=_UNTOLD,
            )
            self._check(
                self._ucp.ucp_ep_create(self._worker, byref(to), byref(self._endpoint)), "UCX finds no way to the peer"
            )

    def send(self, data: memoryview, tag: int, until: float) -> None:
        """Returns when the memory is free again and the message on its way, with nothing left to do for it here.
        `until` is on the monotonic clock."""
        with self._using():
            param = ucp.RequestParam()
            self._wait(
                self._ucp.ucp_tag_send_nbx(self._endpoint, address_of(data), len(data), tag, byref(param)), until
            )
            self._wait(self._ucp.ucp_worker_flush_nbx(self._worker, byref(param)), until)

    def receive(self, into: memoryview, tag: int, until: float, beside: int) -> None:
        """Takes the message of that tag, which must be exactly as long. `beside` is the descriptor of a socket: when
        its peer hangs up, nothing is waited for any more."""
        with self._using():
            self._poll.register(beside, select.POLLRDHUP)
            param = ucp.RequestParam(op_attr_mask=ucp.OP_ALWAYS_REQUEST)
            info = ucp.ReceiveInfo()
            request = self._ucp.ucp_tag_recv_nbx(
                self._worker, address_of(into), len(into), tag, ucp.WHOLE_TAG, byref(param)
            )
            self._wait(request, until, info)
            if info.length != len(into):
                raise UcxFailed(f"{info.length} bytes came by UCX where {len(into)} were announced")

    def close(self) -> None:
        """When it returns, no memory is touched any more. Idempotent; a call under way ends with UcxFailed."""
        with self._end:
            first, self._ended = not self._ended, True
        if first:
            os.eventfd_write(self._wake, 1)
        with self._in_use:
            self._destroy()
        if first:
            os.close(self._wake)

    @contextmanager
    def _using(self) -> Iterator[None]:
        with self._in_use:
            if not self._worker:
                raise UcxFailed("this end was closed")
            try:
                yield
            except UcxFailed:
                self._destroy()
                raise

    def _wait(self, request: int | None, until: float, info: ucp.ReceiveInfo | None = None) -> None:
        if request is None:
            return
        if request >= ucp.FIRST_ERROR:
            self._check(request - 2**64, "UCX lost the peer")
        self._request = request
        while self._ucp.ucp_request_check_status(request) == ucp.IN_PROGRESS:
            self._progress(until)
        if info is not None:
            status = self._ucp.ucp_tag_recv_request_test(request, byref(info))
        else:
            status = self._ucp.ucp_request_check_status(request)
        self._request = None
        self._ucp.ucp_request_free(request)
        self._check(status, "UCX lost the peer")

    def _progress(self, until: float) -> None:
        """Does what there is to do, or waits for some."""
        left = until - monotonic()
        if left <= 0:
            raise UcxFailed("UCX did not move a piece in time")
        if self._ucp.ucp_worker_progress(self._worker):
            return
        status = self._ucp.ucp_worker_arm(self._worker)
        if status == ucp.BUSY:
            return
        self._check(status, "UCX cannot wait for events")
        for descriptor, _ in self._poll.poll(ceil(left * 1000)):
            if descriptor != self._events:
                raise UcxFailed("this end was closed" if descriptor == self._wake else "the peer hung up")

    def _destroy(self) -> None:
        if self._worker:
            self._wind_up()
            self._ucp.ucp_worker_destroy(self._worker)
        if self._context:
            self._ucp.ucp_cleanup(self._context)
        self._context, self._worker, self._endpoint = c_void_p(), c_void_p(), c_void_p()

    def _wind_up(self) -> None:
        """Ends what is under way; destroying the worker would do, but complain."""
        hanging = []
        if self._request is not None:
            self._ucp.ucp_request_cancel(self._worker, self._request)
            hanging.append(self._request)
        if self._endpoint:
            by_force = ucp.RequestParam(op_attr_mask=ucp.OP_FLAGS, flags=ucp.CLOSE_BY_FORCE)
            closing = self._ucp.ucp_ep_close_nbx(self._endpoint, byref(by_force))
            if closing is not None and closing < ucp.FIRST_ERROR:
                hanging.append(closing)
        until = monotonic() + _WINDING_UP
        while hanging and monotonic() < until:
            if not self._ucp.ucp_worker_progress(self._worker):
                sleep(_PAUSE)
            for request in [each for each in hanging if self._ucp.ucp_request_check_status(each) != ucp.IN_PROGRESS]:
                self._ucp.ucp_request_free(request)
                hanging.remove(request)

    def _check(self, status: int, failed: str) -> None:
        if status != ucp.OK:
            raise UcxFailed(f"{failed}: {self._ucp.ucs_status_string(status).decode()}")

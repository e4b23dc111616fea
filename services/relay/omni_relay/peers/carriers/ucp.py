"""UCX's C library, as far as the relay needs it: declarations for ctypes, which frees the interpreter's lock for each
call. They are those of ucp.h, whose structs say in a mask which of their fields are set, so that they fit every
libucp.so.0 since API 1.12.

(The binding on PyPI, ucxx, would bring a GPU's memory manager along, 300 MB in all; and when a worker of its is gone,
and with it the last write to memory, is left to reference counts.)
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Mapping
from ctypes import POINTER, c_char_p, c_int, c_int8, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from functools import cache

from omni_relay.peers.carriers.loading import unchanged

API = (1, 12)
"""The library refuses to be older; all that is used here was there by then."""

OK, IN_PROGRESS, BUSY = 0, 1, -15
FIRST_ERROR = 2**64 - 100
"""Some functions answer with a request, with nothing (done), or with an error as one of the last hundred addresses."""

FEATURE_TAG, FEATURE_WAKEUP = 1 << 0, 1 << 4
PARAM_FEATURES = 1 << 0
WORKER_THREAD_MODE, SERIALIZED = 1 << 0, 1
EP_ADDRESS, EP_ERROR_MODE, EP_ERROR_HANDLER, ERRORS_OF_PEER = 1 << 0, 1 << 1, 1 << 2, 1
OP_FLAGS, OP_ALWAYS_REQUEST, CLOSE_BY_FORCE = 1 << 4, 1 << 16, 1
WHOLE_TAG = 2**64 - 1

OPTIONS: Mapping[str, str] = {
    # With the 8 KiB that UCX would take, 1 MiB over TCP takes three times as long.
    "TCP_TX_SEG_SIZE": "256k",
    "TCP_RX_SEG_SIZE": "256k",
    # None: it would be claimed for each connection, 4 MB, and then not used.
    "SHM_DEVICES": "",
}
"""Of UCX, also of the one inside of NIXL. All others are the operator's, who sets them as UCX_… in the environment."""


class Params(ctypes.Structure):
    """ucp_params_t"""

    _fields_ = (
        ("field_mask", c_uint64),
        ("features", c_uint64),
        ("request_size", c_size_t),
        ("request_init", c_void_p),
        ("request_cleanup", c_void_p),
        ("tag_sender_mask", c_uint64),
        ("mt_workers_shared", c_int),
        ("estimated_num_eps", c_size_t),
        ("estimated_num_ppn", c_size_t),
        ("name", c_char_p),
        ("node_local_id", c_size_t),
    )


class WorkerParams(ctypes.Structure):
    """ucp_worker_params_t"""

    _fields_ = (
        ("field_mask", c_uint64),
        ("thread_mode", c_int),
        ("cpu_mask", c_uint64 * 16),
        ("events", c_uint),
        ("user_data", c_void_p),
        ("event_fd", c_int),
        ("flags", c_uint64),
        ("name", c_char_p),
        ("am_alignment", c_size_t),
        ("client_id", c_uint64),
    )


ErrorHandler = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_int8)
"""ucp_err_handler_cb_t"""


class EndpointParams(ctypes.Structure):
    """ucp_ep_params_t"""

    _fields_ = (
        ("field_mask", c_uint64),
        ("address", c_char_p),
        ("err_mode", c_int),
        ("err_handler", ErrorHandler),
        ("err_handler_arg", c_void_p),
        ("user_data", c_void_p),
        ("flags", c_uint),
        ("sockaddr", c_void_p * 2),
        ("conn_request", c_void_p),
        ("name", c_char_p),
        ("local_sockaddr", c_void_p * 2),
    )


class RequestParam(ctypes.Structure):
    """ucp_request_param_t"""

    _fields_ = (
        ("op_attr_mask", c_uint32),
        ("flags", c_uint32),
        ("request", c_void_p),
        ("cb", c_void_p),
        ("datatype", c_uint64),
        ("user_data", c_void_p),
        ("reply_buffer", c_void_p),
        ("memory_type", c_int),
        ("recv_info", c_void_p),
        ("memh", c_void_p),
    )


class ReceiveInfo(ctypes.Structure):
    """ucp_tag_recv_info_t"""

    _fields_ = (("sender_tag", c_uint64), ("length", c_size_t))


_FUNCTIONS: Mapping[str, tuple[object, ...]] = {
    # name: (what it returns, its arguments…)
    "ucp_get_version_string": (c_char_p,),
    "ucp_config_read": (c_int8, c_char_p, c_char_p, POINTER(c_void_p)),
    "ucp_config_modify": (c_int8, c_void_p, c_char_p, c_char_p),
    "ucp_config_release": (None, c_void_p),
    "ucp_init_version": (c_int8, c_uint, c_uint, POINTER(Params), c_void_p, POINTER(c_void_p)),
    "ucp_cleanup": (None, c_void_p),
    "ucp_worker_create": (c_int8, c_void_p, POINTER(WorkerParams), POINTER(c_void_p)),
    "ucp_worker_destroy": (None, c_void_p),
    "ucp_worker_get_address": (c_int8, c_void_p, POINTER(c_void_p), POINTER(c_size_t)),
    "ucp_worker_release_address": (None, c_void_p, c_void_p),
    "ucp_worker_get_efd": (c_int8, c_void_p, POINTER(c_int)),
    "ucp_worker_progress": (c_uint, c_void_p),
    "ucp_worker_arm": (c_int8, c_void_p),
    "ucp_worker_signal": (c_int8, c_void_p),
    "ucp_worker_flush_nbx": (c_void_p, c_void_p, POINTER(RequestParam)),
    "ucp_ep_create": (c_int8, c_void_p, POINTER(EndpointParams), POINTER(c_void_p)),
    "ucp_ep_close_nbx": (c_void_p, c_void_p, POINTER(RequestParam)),
    "ucp_tag_send_nbx": (c_void_p, c_void_p, c_void_p, c_size_t, c_uint64, POINTER(RequestParam)),
    "ucp_tag_recv_nbx": (c_void_p, c_void_p, c_void_p, c_size_t, c_uint64, c_uint64, POINTER(RequestParam)),
    "ucp_tag_recv_request_test": (c_int8, c_void_p, POINTER(ReceiveInfo)),
    "ucp_request_check_status": (c_int8, c_void_p),
    "ucp_request_cancel": (None, c_void_p, c_void_p),
    "ucp_request_free": (None, c_void_p),
    "ucs_status_string": (c_char_p, c_int8),
}


@cache
def library() -> ctypes.CDLL:
    """The library of the package libucx if that is installed, else the machine's own. Raises OSError.

    Takes 0.4 s, in which it measures the processor's clock."""
    with unchanged():
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module("libucx").load_library()
        loaded = ctypes.CDLL("libucp.so.0")
    for name, (returns, *takes) in _FUNCTIONS.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = returns, takes
    return loaded

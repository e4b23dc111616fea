"""What need not be on a dashboard, and which queries a mesh on one machine cannot answer; each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

# Names of the names module.
NOT_ON_A_DASHBOARD: Mapping[str, str] = {}

# By the start of `board / panel / legend`.
NOT_LIVE: Mapping[str, str] = {
    "omni-kubernetes / ": "Its metrics are those of kube-state-metrics, the kubelet and NVIDIA's exporter.",
    "omni-edges / Sent again / ": "Needs a transport that breaks under way: counted in test_device_ways, test_loans.",
    "omni-edges / Sent again, and damaged / ": "Needs a wire that damages what it carries: counted in "
    "test_relay_peers_harm.",
    "omni-overview / Refused TLS handshakes / callers": "`omni up` serves HTTP: counted in test_gateway_https.",
}

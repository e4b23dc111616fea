"""What the cluster says of the mesh's pods: needs kube-state-metrics, the kubelet's cAdvisor and NVIDIA's exporter."""

from __future__ import annotations

from omni_cli.dashboards.panels import Board, Panel, Query, Row
from omni_cli.dashboards.promql import MESH, WINDOW

# The metrics of others know no component. What is drawn is of the whole namespace, container by container.
_CONTAINERS = f'{MESH},container!="",container!="POD"'
_NAME = "{{pod}} {{container}}"

PODS = Row(
    "Pods",
    (
        Panel(
            title="Pods by phase",
            says="Pending ones wait for a node, most often for a GPU: `omni doctor` says for what.",
            queries=(Query(f"sum by (phase) (kube_pod_status_phase{{{MESH}}})", "{{phase}}"),),
        ),
        Panel(
            title="Containers that are not ready",
            says="They start, load weights, or fail their probe.",
            queries=(Query(f"sum by (pod, container) (kube_pod_container_status_ready{{{MESH}}} == bool 0)", _NAME),),
        ),
        Panel(
            title="Restarts",
            says="In the last hour, by container.",
            queries=(
                Query(
                    f"sum by (pod, container) (increase(kube_pod_container_status_restarts_total{{{MESH}}}[1h]))", _NAME
                ),
            ),
        ),
        Panel(
            title="Why containers wait",
            says="Such as CrashLoopBackOff or ImagePullBackOff.",
            queries=(
                Query(
                    f"sum by (pod, reason) (kube_pod_container_status_waiting_reason{{{MESH}}})", "{{pod}} {{reason}}"
                ),
            ),
        ),
        Panel(
            title="Replicas wanted and there",
            says="Of each Deployment.",
            queries=(
                Query(f"sum by (deployment) (kube_deployment_spec_replicas{{{MESH}}})", "{{deployment}} wanted"),
                Query(
                    f"sum by (deployment) (kube_deployment_status_replicas_available{{{MESH}}})", "{{deployment}} there"
                ),
            ),
        ),
        Panel(
            title="Autoscaler",
            says="Replicas that it wants, and the most that it may have.",
            queries=(
                Query(
                    "sum by (horizontalpodautoscaler) "
                    f"(kube_horizontalpodautoscaler_status_desired_replicas{{{MESH}}})",
                    "{{horizontalpodautoscaler}}",
                ),
                Query(
                    f"sum by (horizontalpodautoscaler) (kube_horizontalpodautoscaler_spec_max_replicas{{{MESH}}})",
                    "{{horizontalpodautoscaler}} at most",
                ),
            ),
        ),
    ),
)

RESOURCES = Row(
    "CPU and memory",
    (
        Panel(
            title="CPU",
            says="Cores in use.",
            queries=(
                Query(
                    f"sum by (pod, container) (rate(container_cpu_usage_seconds_total{{{_CONTAINERS}}}{WINDOW}))", _NAME
                ),
            ),
            unit="cores",
        ),
        Panel(
            title="CPU withheld",
            says="Share of the periods in which a container had used up its limit.",
            queries=(
                Query(
                    "sum by (pod, container) "
                    f"(rate(container_cpu_cfs_throttled_periods_total{{{_CONTAINERS}}}{WINDOW})) / "
                    f"sum by (pod, container) (rate(container_cpu_cfs_periods_total{{{_CONTAINERS}}}{WINDOW}))",
                    _NAME,
                ),
            ),
            unit="percentunit",
            most=1,
        ),
        Panel(
            title="Memory",
            says="Working set; an arena in memory counts for the container that touched it first.",
            queries=(Query(f"sum by (pod, container) (container_memory_working_set_bytes{{{_CONTAINERS}}})", _NAME),),
            unit="bytes",
        ),
        Panel(
            title="Memory over its limit",
            says="At 1 the container is killed.",
            queries=(
                Query(
                    f"sum by (pod, container) (container_memory_working_set_bytes{{{_CONTAINERS}}}) / "
                    "sum by (pod, container) "
                    f'(kube_pod_container_resource_limits{{{MESH},resource="memory"}})',
                    _NAME,
                ),
            ),
            unit="percentunit",
        ),
        Panel(
            title="Network",
            says="Bytes in and out of each pod. Stages of one pod hand each other tensors without it.",
            queries=(
                Query(f"sum by (pod) (rate(container_network_receive_bytes_total{{{MESH}}}{WINDOW}))", "{{pod}} in"),
                Query(f"sum by (pod) (rate(container_network_transmit_bytes_total{{{MESH}}}{WINDOW}))", "{{pod}} out"),
            ),
            unit="Bps",
        ),
    ),
)

GPUS = Row(
    "GPUs",
    (
        Panel(
            title="Utilisation",
            says="By pod, as NVIDIA's exporter sees it.",
            queries=(Query(f"max by (pod, gpu) (DCGM_FI_DEV_GPU_UTIL{{{MESH}}})", "{{pod}} {{gpu}}"),),
            unit="percent",
            most=100,
        ),
        Panel(
            title="Memory",
            says="In use on the device, in MiB as the exporter has it.",
            queries=(Query(f"max by (pod, gpu) (DCGM_FI_DEV_FB_USED{{{MESH}}})", "{{pod}} {{gpu}}"),),
            unit="mbytes",
        ),
        Panel(
            title="Faults",
            says="XID errors of the driver: a GPU that has any of them should be looked at.",
            queries=(Query(f"max by (pod, gpu) (DCGM_FI_DEV_XID_ERRORS{{{MESH}}})", "{{pod}} {{gpu}}"),),
        ),
    ),
)

KUBERNETES = Board(
    "omni-kubernetes",
    "omni / Kubernetes",
    "What the cluster says of the mesh's pods: restarts, CPU, memory, GPUs.",
    (PODS, RESOURCES, GPUS),
)

{{/* What a schema cannot say; every failure is a sentence that names the value. */}}

{{/* Of the whole release. */}}
{{- define "omni.validate.release" -}}
{{- if not (include "omni.served" . | fromJson).names }}
{{- fail "pipelines has none that is enabled: set pipelines.NAME.enabled of one to true." }}
{{- end }}
{{- include "omni.validate.names" . }}
{{- include "omni.validate.tls" . }}
{{- include "omni.validate.https" . }}
{{- include "omni.validate.auth" . }}
{{- include "omni.validate.apis" . }}
{{- include "omni.validate.pods" . }}
{{- range $name := list "gateway" "coordinator" }}
{{- $own := get $.Values $name }}
{{- $values := mergeOverwrite (deepCopy $.Values.podDefaults) (deepCopy $own) }}
{{- include "omni.validate.scaling" (dict "path" $name "own" $own "values" $values "root" $) }}
{{- end }}
{{- if and .Values.tracing.enabled (not .Values.tracing.endpoint) }}
{{- fail "tracing.endpoint is empty: with tracing.enabled it must say where traces go, http://host:4317." }}
{{- end }}
{{- with .Values.gateway.service }}
{{- if and .nodePort (eq .type "ClusterIP") }}
{{- fail (printf "gateway.service.nodePort is %d, but gateway.service.type is ClusterIP, which has none: set it to NodePort or LoadBalancer." (int .nodePort)) }}
{{- end }}
{{- end }}
{{- if and .Values.networkPolicy.gatewayFrom (not .Values.networkPolicy.enabled) }}
{{- fail "networkPolicy.gatewayFrom is set, but networkPolicy.enabled is false: everybody could reach the gateway." }}
{{- end }}
{{- if and .Values.gateway.ingress.enabled (not .Values.gateway.ingress.hosts) }}
{{- fail "gateway.ingress.hosts is empty: an Ingress needs a host name at least." }}
{{- end }}
{{- if and .Values.gateway.route.enabled (not .Values.gateway.route.parentRefs) }}
{{- fail "gateway.route.parentRefs is empty: an HTTPRoute belongs to a Gateway, which it must name." }}
{{- end }}
{{- end }}

{{/* Of replicas, autoscaling and KEDA: (dict "path" "gateway" "own" {…} "values" {…} "root" $). */}}
{{- define "omni.validate.scaling" -}}
{{- $auto := .values.autoscaling }}
{{- $keda := .values.keda }}
{{- $path := .path }}
{{- if and $auto.enabled $keda.enabled }}
{{- fail (printf "%s.autoscaling.enabled and %s.keda.enabled are both true: KEDA makes an autoscaler of its own, so take one of them." $path $path) }}
{{- end }}
{{- if or $auto.enabled $keda.enabled }}
{{- $which := ternary "autoscaling" "keda" $auto.enabled }}
{{- if and (hasKey .own "replicas") (not (kindIs "invalid" .own.replicas)) }}
{{- fail (printf "%s.replicas is set, and %s.%s.enabled is true: the autoscaler says how many there are, so leave out replicas (or set it to null)." $path $path $which) }}
{{- end }}
{{- if gt (int $auto.minReplicas) (int $auto.maxReplicas) }}
{{- fail (printf "%s.autoscaling.minReplicas is %d, above maxReplicas, which is %d." $path (int $auto.minReplicas) (int $auto.maxReplicas)) }}
{{- end }}
{{- $targets := false }}
{{- range $name, $target := $auto.targets }}{{ if $target }}{{ $targets = true }}{{ end }}{{ end }}
{{- if not (or $targets (and $auto.enabled $auto.metrics) (and $keda.enabled $keda.triggers)) }}
{{- fail (printf "%s.autoscaling.targets has none above 0: an autoscaler needs something to go by, waiting for instance." $path) }}
{{- end }}
{{- if not (hasPrefix "pipelines." $path) }}
{{- range $name := list "waiting" "oldestWaitingSeconds" "realTimeFactor" "firstAudioSeconds" }}
{{- if get $auto.targets $name }}{{ fail (printf "%s.autoscaling.targets.%s is a figure of stages: set it for a placement group." $path $name) }}{{ end }}
{{- end }}
{{- end }}
{{- if and (ne $path "gateway") $auto.targets.inFlight }}
{{- fail (printf "%s.autoscaling.targets.inFlight is a figure of the gateway: set it there." $path) }}
{{- end }}
{{- if and $auto.enabled (eq (int $auto.minReplicas) 0) }}
{{- fail (printf "%s.autoscaling.minReplicas is 0: only KEDA (%s.keda.enabled) starts the first pod again." $path $path) }}
{{- end }}
{{- if and $keda.enabled (eq (int $auto.minReplicas) 0) (not (hasPrefix "pipelines." $path)) }}
{{- fail (printf "%s.autoscaling.minReplicas is 0: nobody would hear the first request; only placement groups may go to 0." $path) }}
{{- end }}
{{- if and $keda.enabled (include "omni.connected" .root) (not (.root.Capabilities.APIVersions.Has "keda.sh/v1alpha1")) }}
{{- fail (printf "%s.keda.enabled is true, but the cluster does not have keda.sh/v1alpha1: install KEDA first." $path) }}
{{- end }}
{{- if and $keda.enabled (not .root.Values.metrics.prometheusAddress) }}
{{- fail (printf "metrics.prometheusAddress is empty: %s.keda.enabled needs a Prometheus to ask." $path) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether a cluster is asked at all: every namespace has this ConfigMap, which whoever installs may read. */}}
{{- define "omni.connected" -}}
{{- if lookup "v1" "ConfigMap" .Release.Namespace "kube-root-ca.crt" }}true{{ end }}
{{- end }}

{{/* A Secret that a value names is there, with these keys. */}}
{{- define "omni.validate.secret" -}}
{{- if include "omni.connected" .root }}
{{- $there := lookup "v1" "Secret" .root.Release.Namespace .name }}
{{- if not $there }}
{{- fail (printf "%s names the Secret '%s', which is not in namespace '%s'." .path .name .root.Release.Namespace) }}
{{- end }}
{{- range .keys }}
{{- if not (hasKey (default dict $there.data) .) }}
{{- fail (printf "%s names the Secret '%s', which has no key %s." $.path $.name .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Kinds that the cluster must know. */}}
{{- define "omni.validate.apis" -}}
{{- if include "omni.connected" . }}
{{- $needed := dict }}
{{- if or (eq .Values.tls.source "certManager") (eq (include "omni.httpsSource" .) "certManager") }}{{ $_ := set $needed "cert-manager.io/v1" "tls.source or tls.https.source is certManager" }}{{ end }}
{{- if or .Values.metrics.podMonitor.enabled .Values.metrics.prometheusRule.enabled }}{{ $_ := set $needed "monitoring.coreos.com/v1" "metrics.podMonitor.enabled or metrics.prometheusRule.enabled is true" }}{{ end }}
{{- if .Values.gateway.route.enabled }}{{ $_ := set $needed "gateway.networking.k8s.io/v1" "gateway.route.enabled is true" }}{{ end }}
{{- if and .Values.gateway.route.enabled .Values.gateway.route.backendTLSPolicy (eq (include "omni.httpsSource" .) "selfSigned") }}
{{- $_ := set $needed "gateway.networking.k8s.io/v1/BackendTLSPolicy" "gateway.route.backendTLSPolicy is true" }}
{{- end }}
{{- range $api, $why := $needed }}
{{- if not ($.Capabilities.APIVersions.Has $api) }}
{{- fail (printf "%s, but the cluster does not have %s: install what brings it first." $why $api) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

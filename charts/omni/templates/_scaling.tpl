{{/* Autoscaling of a component, by one of two means. Takes what omni.deployment takes. */}}

{{- define "omni.scaling" -}}
{{- if .values.autoscaling.enabled }}
---
{{ include "omni.hpa" . }}
{{- else if .values.keda.enabled }}
---
{{ include "omni.scaledObject" . }}
{{- end }}
{{- end }}

{{/* Pods go one at a time, each after the one before it has had its time to finish. */}}
{{- define "omni.scalingBehavior" -}}
{{- if .values.autoscaling.behavior }}
{{- toYaml .values.autoscaling.behavior }}
{{- else -}}
scaleUp:
  stabilizationWindowSeconds: 0
  policies:
    - {type: Pods, value: 2, periodSeconds: 60}
    - {type: Percent, value: 100, periodSeconds: 60}
scaleDown:
  stabilizationWindowSeconds: {{ .values.autoscaling.scaleDownSeconds }}
  policies:
    - {type: Pods, value: 1, periodSeconds: {{ min 1800 (include "omni.grace" .) }}}
{{- end }}
{{- end }}

{{- define "omni.hpa" -}}
{{- $auto := .values.autoscaling }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "omni.metadata" (omit . "annotations") | nindent 2 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ .name }}}
  minReplicas: {{ $auto.minReplicas }}
  maxReplicas: {{ $auto.maxReplicas }}
  metrics:
    {{- with $auto.targets.cpuPercent }}
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: {{ . }}}}
    {{- end }}
    {{- range $signal := (include "omni.signals" . | fromJson).signals }}
    {{- if $signal.ofPods }}
    - type: Pods
      pods:
        metric: {name: {{ $signal.metric }}}
        target: {type: AverageValue, averageValue: {{ $signal.target | quote }}}
    {{- else }}
    - type: External
      external:
        metric:
          name: {{ $signal.metric }}
          selector: {matchLabels: {namespace: {{ $.root.Release.Namespace }}, pipeline: {{ $.pipeline | quote }}}}
        target: {type: Value, value: {{ $signal.target | quote }}}
    {{- end }}
    {{- end }}
    {{- with $auto.metrics }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  behavior:
    {{- include "omni.scalingBehavior" . | nindent 4 }}
{{- end }}

{{- define "omni.scaledObject" -}}
{{- $auto := .values.autoscaling }}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  {{- include "omni.metadata" (omit . "annotations") | nindent 2 }}
spec:
  scaleTargetRef: {name: {{ .name }}}
  minReplicaCount: {{ $auto.minReplicas }}
  maxReplicaCount: {{ $auto.maxReplicas }}
  pollingInterval: {{ .values.keda.pollingInterval }}
  cooldownPeriod: {{ .values.keda.cooldownPeriod }}
  {{- /* KEDA takes one only where a trigger is an average of pods. */}}
  {{- $signals := (include "omni.signals" . | fromJson).signals }}
  {{- $averages := eq (int $auto.minReplicas) 0 }}
  {{- range $signals }}{{ $averages = or $averages .ofPods }}{{ end }}
  {{- if $averages }}
  fallback:
    failureThreshold: 3
    {{- if kindIs "invalid" .values.keda.fallbackReplicas }}
    replicas: {{ max 1 $auto.minReplicas }}
    behavior: currentReplicasIfHigher
    {{- else }}
    replicas: {{ .values.keda.fallbackReplicas }}
    {{- end }}
  {{- end }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        {{- include "omni.scalingBehavior" . | nindent 8 }}
  triggers:
    {{- with $auto.targets.cpuPercent }}
    - type: cpu
      metricType: Utilization
      metadata: {value: {{ . | quote }}}
    {{- end }}
    {{- range $signal := $signals }}
    - type: prometheus
      name: {{ $signal.name }}
      metricType: {{ ternary "AverageValue" "Value" $signal.ofPods }}
      metadata:
        serverAddress: {{ $.root.Values.metrics.prometheusAddress }}
        query: {{ $signal.query | quote }}
        threshold: {{ $signal.target | quote }}
        activationThreshold: "0"
    {{- end }}
    {{- if eq (int $auto.minReplicas) 0 }}
    # Of none, the first request is refused with a time to come back; this sees it and starts a pod.
    - type: prometheus
      name: wanted
      metricType: AverageValue
      metadata:
        serverAddress: {{ $.root.Values.metrics.prometheusAddress }}
        query: {{ include "omni.wantedQuery" . | quote }}
        threshold: "1000000"
        activationThreshold: "0"
    {{- end }}
    {{- with .values.keda.triggers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* The targets that are set, as {"signals": [{name, metric, query, target, ofPods}]}. Of pods: a sum over them, of which
     each should have so much; else a figure of the whole pipeline. The metrics are those of omni_common/telemetry/names.py. */}}
{{- define "omni.signals" -}}
{{- /* Kubernetes cuts the end of long names of pods. */}}
{{- $pattern := ternary (printf "%s-[a-z0-9]+-[a-z0-9]+" .name) (printf "%s.*" (trunc 45 .name)) (le (len .name) 45) }}
{{- $pods := printf "namespace=%q,pod=~%q" .root.Release.Namespace $pattern }}
{{- $of := printf "namespace=%q,pipeline=%q" .root.Release.Namespace (default "" .pipeline) }}
{{- $p95 := "histogram_quantile(0.95, sum by (le) (rate(%s_bucket{%s}[2m]))) >= 0 or vector(0)" }}
{{- $all := list
  (dict
    "name" "inFlight" "metric" "omni_http_in_flight" "ofPods" true
    "query" (printf "sum(omni_http_in_flight{%s}) or vector(0)" $pods))
  (dict
    "name" "waiting" "metric" "omni_stage_waiting" "ofPods" true
    "query" (printf "sum(omni_stage_waiting{%s}) or vector(0)" $pods))
  (dict
    "name" "oldestWaitingSeconds" "metric" "omni_stage_oldest_waiting_seconds" "ofPods" true
    "query" (printf "sum(max by (pod) (omni_stage_oldest_waiting_seconds{%s})) or vector(0)" $pods))
  (dict "name" "realTimeFactor" "metric" "omni_audio_rtf_p95" "ofPods" false "query" (printf $p95 "omni_audio_rtf" $of))
  (dict
    "name" "firstAudioSeconds" "metric" "omni_time_to_first_audio_seconds_p95" "ofPods" false
    "query" (printf $p95 "omni_time_to_first_audio_seconds" $of))
}}
{{- $signals := list }}
{{- range $signal := $all }}
{{- $target := get $.values.autoscaling.targets $signal.name }}
{{- if $target }}
{{- /* Kubernetes writes parts of one as thousandths. */}}
{{- $_ := set $signal "target" (toString $target) }}
{{- $signals = append $signals $signal }}
{{- end }}
{{- end }}
{{- dict "signals" $signals | toJson }}
{{- end }}

{{/* Whether a pipeline is there at all times. Where all may go to none, a gateway that waits for one to be ready would
     never hear the request that brings it back. */}}
{{- define "omni.stands" -}}
{{- $resting := dict }}
{{- range (include "omni.mesh" . | fromJson).groups }}
{{- if and .values.keda.enabled (eq (int .values.autoscaling.minReplicas) 0) }}{{ $_ := set $resting .pipeline true }}{{ end }}
{{- end }}
{{- lt (len $resting) (len (include "omni.served" . | fromJson).names) }}
{{- end }}

{{/* Whether somebody wants the pipeline just now. */}}
{{- define "omni.wantedQuery" -}}
{{- $of := printf "namespace=%q,pipeline=%q" .root.Release.Namespace .pipeline }}
{{- printf "(sum(increase(omni_admission_refusals_total{%s,reason=\"stage_unavailable\"}[2m])) or vector(0)) + (sum(omni_live_requests{%s}) or vector(0))" $of $of }}
{{- end }}

{{/* Kubernetes lets nobody change a template, so another claim has another name. */}}
{{- define "omni.claimTemplateName" -}}
{{- $asked := pick .values.gpu "deviceClassName" "count" "selectors" | toJson }}
{{- printf "%s-gpu-%s" .name (sha256sum $asked | trunc 6) }}
{{- end }}

{{/* The claim for the GPUs of each of a group's pods. */}}
{{- define "omni.claimTemplate" -}}
{{- $gpu := .values.gpu }}
{{- if and (eq $gpu.mode "dra") (not $gpu.existingClaimTemplate) }}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata:
  {{- include "omni.metadata" (merge (dict "name" (include "omni.claimTemplateName" .)) (omit . "annotations")) | nindent 2 }}
spec:
  spec:
    devices:
      requests:
        - name: gpu
          exactly:
            deviceClassName: {{ $gpu.deviceClassName }}
            allocationMode: ExactCount
            count: {{ $gpu.count }}
            {{- with $gpu.selectors }}
            selectors:
              {{- range . }}
              - cel: {expression: {{ . | quote }}}
              {{- end }}
            {{- end }}
{{- end }}
{{- end }}

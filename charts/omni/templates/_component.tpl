{{/* The one Deployment of the chart, and what goes with each.
     (dict "root" $ "name" … "component" … "pipeline" … "group" … "values" {…} "annotations" {…}
           "containers" TEXT "initContainers" TEXT "volumes" TEXT) */}}
{{- define "omni.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "omni.metadata" (omit . "annotations") | nindent 2 }}
spec:
  {{- if not (or .values.autoscaling.enabled .values.keda.enabled) }}
  replicas: {{ .values.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  minReadySeconds: {{ .values.minReadySeconds }}
  progressDeadlineSeconds: {{ add (int64 .values.startupSeconds) (int64 (include "omni.grace" .)) 60 }}
  strategy:
    {{- /* Recreate over a default of RollingUpdate leaves its bounds, which Kubernetes refuses. */}}
    {{- toYaml (eq .values.strategy.type "Recreate" | ternary (omit .values.strategy "rollingUpdate") .values.strategy) | nindent 4 }}
  selector:
    matchLabels:
      {{- include "omni.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- toYaml (merge (dict) .values.podLabels (include "omni.labels" . | fromYaml)) | nindent 8 }}
      {{- with merge (dict) (default dict .annotations) .values.podAnnotations .root.Values.commonAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- include "omni.pod" . | nindent 6 }}
{{- end }}

{{- define "omni.pod" -}}
serviceAccountName: {{ include "omni.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "omni.grace" . }}
securityContext:
  {{- include "omni.podSecurity" .root | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- include "omni.placement" . }}
{{- with .podFields }}
{{ . }}
{{- end }}
{{- with .initContainers }}
initContainers:
  {{- . | nindent 2 }}
{{- end }}
containers:
  {{- .containers | nindent 2 }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: {{ .values.tmpSize }}}
  {{- .volumes | nindent 2 }}
  {{- with .values.volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "omni.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Where pods run is the cluster's scheduler's to say; these are what it is told. */}}
{{- define "omni.placement" -}}
{{- range $field := list "runtimeClassName" "priorityClassName" "schedulerName" }}
{{- with get $.values $field }}
{{ $field }}: {{ . }}
{{- end }}
{{- end }}
{{- range $field := list "nodeSelector" "affinity" "tolerations" }}
{{- with get $.values $field }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
topologySpreadConstraints:
  {{- $soft := list }}
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  {{- $soft = append $soft (dict "maxSkew" 1 "topologyKey" $key "whenUnsatisfiable" "ScheduleAnyway") }}
  {{- end }}
  {{- /* Of one revision: else the old pods of a rollout leave its new ones no node, where every node has one. */}}
  {{- $own := dict
    "labelSelector" (dict "matchLabels" (include "omni.selector" . | fromYaml)) "matchLabelKeys" (list "pod-template-hash") }}
  {{- /* Nodes that the pods do not tolerate have none for ever, and so would leave the others one each. */}}
  {{- $nodes := dict "nodeTaintsPolicy" "Honor" }}
  {{- range default $soft .values.topologySpreadConstraints }}
  - {{- toYaml (merge (deepCopy .) (ternary dict $own (hasKey . "labelSelector")) $nodes) | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Of two pods or more, one may be taken at a time, and a broken one always. */}}
{{- define "omni.pdb" -}}
{{- $scaled := or .values.autoscaling.enabled .values.keda.enabled }}
{{- $pods := ternary .values.autoscaling.maxReplicas .values.replicas $scaled }}
{{- if and .values.pdb.enabled (gt (int $pods) 1) }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "omni.metadata" (omit . "annotations") | nindent 2 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "omni.selector" . | nindent 6 }}
{{- end }}
{{- end }}

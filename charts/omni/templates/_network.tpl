{{/* Parts of NetworkPolicies. */}}

{{/* Pods of this release: takes what omni.selector takes. */}}
{{- define "omni.peer" -}}
- podSelector:
    matchLabels:
      {{- include "omni.selector" . | nindent 6 }}
{{- end }}

{{- define "omni.dnsEgress" -}}
- ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
  to:
    {{- toYaml .Values.networkPolicy.dnsTo | nindent 4 }}
{{- end }}

{{- define "omni.tracesEgress" -}}
{{- if .Values.tracing.enabled }}
- ports: [{protocol: TCP, port: {{ regexFind "[0-9]+$" .Values.tracing.endpoint }}}]
  to:
    {{- toYaml (default (list (dict "namespaceSelector" dict)) .Values.networkPolicy.tracesTo) | nindent 4 }}
{{- end }}
{{- end }}

{{/* Names, and traces where they are sent. */}}
{{- define "omni.commonEgress" -}}
{{- include "omni.dnsEgress" . }}
{{- with include "omni.tracesEgress" . | trim }}
{{ . }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "ports" […]) */}}
{{- define "omni.metricsIngress" -}}
{{- with .root.Values.networkPolicy.metricsFrom }}
- ports:
    {{- range $.ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  from:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{/* Of a placement group: what the pipeline's edges need, stage to stage and relay to relay, and nothing else. */}}
{{- define "omni.groupPolicy" -}}
{{- $edges := (include "omni.edges" (dict "root" .root "name" .pipeline "groups" .groups) | fromJson).edges }}
{{- $metrics := list 9080 }}
{{- range .containers }}{{ $metrics = append $metrics .metrics }}{{ end }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "omni.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "omni.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    {{- range $edges }}
    {{- if eq .to $.group }}
    - ports: {{ include "omni.edgePorts" . }}
      from:
        {{- include "omni.peer" (dict "root" $.root "component" "stage" "pipeline" $.pipeline "group" .from) | nindent 8 }}
    {{- end }}
    {{- end }}
    {{- include "omni.metricsIngress" (dict "root" .root "ports" $metrics) | nindent 4 }}
  egress:
    {{- include "omni.commonEgress" .root | nindent 4 }}
    - ports: [{protocol: TCP, port: 7070}]
      to:
        {{- include "omni.peer" (dict "root" .root "component" "coordinator") | nindent 8 }}
    {{- range $edges }}
    {{- if eq .from $.group }}
    - ports: {{ include "omni.edgePorts" . }}
      to:
        {{- include "omni.peer" (dict "root" $.root "component" "stage" "pipeline" $.pipeline "group" .to) | nindent 8 }}
    {{- end }}
    {{- end }}
    {{- if has .weights.source (list "hub" "packaged") }}
    - ports: [{protocol: TCP, port: 443}]
      to:
        {{- toYaml .root.Values.networkPolicy.weightsTo | nindent 8 }}
    {{- end }}
{{- end }}

{{/* The receiving stages' ports, and their relay's. */}}
{{- define "omni.edgePorts" -}}
{{- $ports := list }}
{{- range concat .ports (list 7080) }}{{ $ports = append $ports (dict "protocol" "TCP" "port" (int .)) }}{{ end }}
{{- toJson $ports }}
{{- end }}

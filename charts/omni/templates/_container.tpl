{{/* What containers have in common. */}}

{{- define "omni.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* name, image, security, and the environment of a service: its settings, then what the user adds.
     (dict "root" $ "name" … "image" … "prefix" "OMNI_X_" "owned" {…} "settings" {…} "env" […] "pod" true) */}}
{{- define "omni.container" -}}
name: {{ .name }}
image: {{ .image }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- /* A process that cannot go on says why in its last line: it outlives the log here, for `kubectl describe` and the doctor. */}}
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  {{- include "omni.containerSecurity" .root | nindent 2 }}
env:
  {{- if .pod }}
  - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
  - {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
  {{- end }}
  {{- include "omni.settings" . | nindent 2 }}
  {{- with .env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Settings as environment variables: "owned" has their names, "settings" the user's in camel case. */}}
{{- define "omni.settings" -}}
{{- $settings := dict }}
{{- range $name, $value := .settings }}
{{- if not (kindIs "invalid" $value) }}{{ $_ := set $settings ($name | snakecase | upper) $value }}{{ end }}
{{- end }}
{{- $settings = mergeOverwrite $settings .owned (include "omni.telemetry" .root | fromJson) }}
{{- range $name := keys $settings | sortAlpha }}
- {name: {{ $.prefix }}{{ $name }}, value: {{ include "omni.plain" (get $settings $name) | quote }}}
{{- end }}
{{- end }}

{{/* Logs and traces of every service. */}}
{{- define "omni.telemetry" -}}
{{- $owned := dict "LOG_LEVEL" .Values.logLevel }}
{{- if .Values.tracing.enabled }}
{{- $_ := set $owned "OTLP_ENDPOINT" .Values.tracing.endpoint }}
{{- $_ := set $owned "TRACE_SAMPLING" .Values.tracing.sampling }}
{{- end }}
{{- toJson $owned }}
{{- end }}

{{/* A value as text: whole numbers without an exponent, lists by commas. */}}
{{- define "omni.plain" -}}
{{- if kindIs "slice" . }}{{ join "," . }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}
{{- else }}{{ . }}
{{- end }}
{{- end }}

{{/* Where a process listens: every address of its pod. (dict "root" $ "port" 7070) */}}
{{- define "omni.bind" -}}
{{- $host := .root.Values.listenAddress -}}
{{- printf "%s:%d" (ternary (printf "[%s]" $host) $host (contains ":" $host)) (int .port) }}
{{- end }}

{{/* Settings of the mesh's certificates; nothing without TLS. JSON. */}}
{{- define "omni.tlsSettings" -}}
{{- if eq .Values.tls.source "none" }}
{{- dict | toJson }}
{{- else }}
{{- dict "TLS_CERT" "/etc/omni/tls/tls.crt" "TLS_KEY" "/etc/omni/tls/tls.key" "TLS_CA" "/etc/omni/tls/ca.crt" | toJson }}
{{- end }}
{{- end }}

{{/* Seconds between two startup probes. Each that fails is an event, and of those a kubelet lets 25 through for a pod, then
     one in five minutes (client-go, tools/record/events_cache.go): the one that says why a stage cannot load must be
     among them, so what may take long is asked less often. (dict "startup" 300) */}}
{{- define "omni.startupPeriod" -}}
{{- $startup := int64 .startup -}}
{{- ternary 5 (ternary 10 30 (le $startup 600)) (le $startup 120) -}}
{{- end }}

{{/* gRPC probes on a health port: (dict "port" 9001 "startup" 300). What is alive but not ready in time is restarted. */}}
{{- define "omni.grpcProbes" -}}
{{- $period := include "omni.startupPeriod" . | int64 }}
startupProbe:
  grpc: {port: {{ .port }}, service: readiness}
  periodSeconds: {{ $period }}
  timeoutSeconds: 3
  failureThreshold: {{ div (add (int64 .startup) (sub $period 1)) $period }}
readinessProbe:
  grpc: {port: {{ .port }}, service: readiness}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
livenessProbe:
  grpc: {port: {{ .port }}, service: liveness}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}

{{/* A pause before SIGTERM; clusters before 1.30 have no `sleep` of their own. (dict "root" $ "seconds" 5) */}}
{{- define "omni.preStop" -}}
lifecycle:
  preStop:
    {{- if semverCompare ">=1.30-0" .root.Capabilities.KubeVersion.Version }}
    sleep: {seconds: {{ .seconds }}}
    {{- else }}
    exec: {command: [sleep, {{ .seconds | toString | quote }}]}
    {{- end }}
{{- end }}

{{/* The containers of a placement group's pod: weights step, relay, stages. */}}

{{- define "omni.stageImage" -}}
{{- $image := .image }}
{{- if eq .values.gpu.mode "none" }}
{{- include "omni.image" (dict "root" .root "image" $image) }}
{{- else }}
{{- include "omni.image" (dict "root" .root "image" (merge (dict "digest" $image.cudaDigest) $image) "suffix" "-cuda") }}
{{- end }}
{{- end }}

{{/* The relay as a native sidecar: there before the stages, gone after them, when it has little left to do. Its limit
     includes the arena. */}}
{{- define "omni.relay" -}}
{{- $relay := .values.relay }}
{{- $arena := include "omni.bytes" $relay.arenaSize }}
{{- $tls := ne .root.Values.tls.source "none" }}
{{- $owned := dict
  "FOLDER" "/run/omni" "ARENA_SIZE" $arena "BIND" (include "omni.bind" (dict "root" .root "port" 7080))
  "ADVERTISE" "$(POD_IP)" "METRICS_HOST" .root.Values.listenAddress
  "METRICS_PORT" 9080 "HEALTH_PORT" 9081 "DRAIN" "20s" }}
{{- if $tls }}
{{- $owned = merge $owned (dict "ENCRYPTION" "aead" "TLS_PEER_NAMES" "omni-relay") (include "omni.tlsSettings" .root | fromJson) }}
{{- end }}
{{- with $relay.transports }}{{ $_ := set $owned "TRANSPORTS" (join "," .) }}{{ end }}
- {{ include "omni.container" (dict
  "root" .root "name" "relay" "image" (include "omni.image" (dict "root" .root "image" .root.Values.relay.image))
  "prefix" "OMNI_RELAY_" "owned" $owned "settings" $relay.settings "env" $relay.env "pod" true) | nindent 2 | trim }}
  restartPolicy: Always
  ports:
    - {name: relay, containerPort: 7080}
    - {name: metrics-relay, containerPort: 9080}
    - {name: health-relay, containerPort: 9081}
  {{- include "omni.grpcProbes" (dict "port" 9081 "startup" 120) | nindent 2 }}
  resources:
    {{- include "omni.withArena" (dict "resources" $relay.resources "arena" $arena) | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: arena, mountPath: /run/omni}
    {{- if $tls }}
    - {name: relay-tls, mountPath: /etc/omni/tls, readOnly: true}
    {{- end }}
{{- end }}

{{/* Resources with the arena's bytes on top of the memory: the relay touches all of it, so it is the relay's. */}}
{{- define "omni.withArena" -}}
{{- $resources := deepCopy .resources }}
{{- range $kind := list "requests" "limits" }}
{{- $of := default dict (get $resources $kind) }}
{{- if $of.memory }}
{{- $sum := add (int64 (include "omni.bytes" $of.memory)) (int64 $.arena) }}
{{- $_ := set $resources $kind (merge (dict "memory" (include "omni.mebibytes" $sum)) $of) }}
{{- end }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{/* One stage container: a process with one stage or several. (group, "root", "container") */}}
{{- define "omni.stage" -}}
{{- $values := .container.values }}
{{- $gpu := .container.gpu }}
{{- $device := ternary $values.device (ternary "cpu" $values.device (eq $values.device "auto")) $gpu }}
{{- $owned := dict
  "FAMILY" .family "PIPELINE" (printf "/etc/omni/pipelines/%s.json" .pipeline) "STAGE" (join "," .container.stages)
  "REPLICA" (printf "$(POD_NAME)-%s" .container.process) "POD" "$(POD_NAME)" "NODE" "$(NODE_NAME)"
  "BIND" (include "omni.bind" (dict "root" .root "port" .container.port)) "ADVERTISE" "$(POD_IP)"
  "COORDINATORS" (printf "%s-coordinator:7070" (include "omni.fullname" .root)) "DEVICE" $device
  "DTYPE" $values.dtype "THREADS" $values.threads "ARENA" "/run/omni" "DRAIN" .root.Values.requestTimeout
  "METRICS_HOST" .root.Values.listenAddress "METRICS_PORT" .container.metrics "HEALTH_PORT" .container.health }}
{{- /* Long enough for the startup probe to come once more, and for its timeout. */}}
{{- $stay := add (int64 (include "omni.startupPeriod" (dict "startup" .values.startupSeconds))) 5 }}
{{- $_ := set $owned "STAY_FAILED" (printf "%ds" $stay) }}
{{- $owned = merge $owned (include "omni.tlsSettings" .root | fromJson) }}
{{- if ne .weights.source "none" }}{{ $_ := set $owned "MODEL" "/weights" }}{{ end }}
{{- $env := list (dict "name" "OMP_NUM_THREADS" "value" (toString $values.threads)) }}
{{- with $values.gpuMemoryFraction }}
{{- $env = append $env (dict "name" "PYTORCH_CUDA_ALLOC_CONF" "value" (printf "per_process_memory_fraction:%v" .)) }}
{{- end }}
{{- $index := .container.index }}
- {{ include "omni.container" (dict
  "root" .root "name" (replace "_" "-" .container.process) "image" (include "omni.stageImage" .)
  "prefix" "OMNI_STAGE_" "owned" $owned "settings" $values.settings "env" (concat $env $values.env) "pod" true) | nindent 2 | trim }}
  ports:
    {{- range $n, $stage := .container.stages }}
    - {name: {{ ternary (printf "grpc-%v" $index) (printf "grpc-%v-%d" $index $n) (eq $n 0) }}, containerPort: {{ add $.container.port $n }}}
    {{- end }}
    - {name: metrics-{{ $index }}, containerPort: {{ .container.metrics }}}
    - {name: health-{{ $index }}, containerPort: {{ .container.health }}}
  {{- include "omni.grpcProbes" (dict "port" .container.health "startup" .values.startupSeconds) | nindent 2 }}
  {{- include "omni.preStop" (dict "root" .root "seconds" .values.preStopSeconds) | nindent 2 }}
  resources:
    {{- include "omni.stageResources" . | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: arena, mountPath: /run/omni}
    - {name: pipelines, mountPath: /etc/omni/pipelines, readOnly: true}
    {{- if ne .weights.source "none" }}
    - {{ include "omni.weightsMount" . }}
    {{- end }}
    {{- if ne .root.Values.tls.source "none" }}
    - {name: tls, mountPath: /etc/omni/tls, readOnly: true}
    {{- end }}
    {{- if ne .values.gpu.mode "none" }}
    - {name: shm, mountPath: /dev/shm}
    {{- end }}
    {{- with $values.volumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* Its resources, and the pod's GPUs: from the device plugin for this container alone, or the claim that all share. */}}
{{- define "omni.stageResources" -}}
{{- $resources := deepCopy .container.values.resources }}
{{- $gpu := .values.gpu }}
{{- if .container.gpu }}
{{- if eq $gpu.mode "devicePlugin" }}
{{- $count := dict $gpu.resourceName $gpu.count }}
{{- range $kind := list "requests" "limits" }}
{{- $_ := set $resources $kind (merge (dict) $count (default dict (get $resources $kind))) }}
{{- end }}
{{- else if eq $gpu.mode "dra" }}
{{- $_ := set $resources "claims" (list (dict "name" "gpu")) }}
{{- end }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{/* What a pod of stages has beside its containers: its claim, and processes that may open each other's memory. */}}
{{- define "omni.stagePodFields" -}}
{{- if eq .values.gpu.mode "dra" }}
shareProcessNamespace: true
resourceClaims:
  - name: gpu
    resourceClaimTemplateName: {{ default (include "omni.claimTemplateName" .) .values.gpu.existingClaimTemplate }}
{{- end }}
{{- end }}

{{- define "omni.stageVolumes" -}}
{{- /* Beside the arena's file lie its ledger, the socket and the holds: small, but not nothing. */ -}}
- name: arena
  emptyDir: {medium: Memory, sizeLimit: {{ include "omni.mebibytes" (add (int64 (include "omni.bytes" .values.relay.arenaSize)) 16777216) }}}
- name: pipelines
  configMap:
    name: {{ include "omni.fullname" .root }}-pipelines
    items:
      - {key: {{ .pipeline }}.json, path: {{ .pipeline }}.json}
{{- if ne .root.Values.tls.source "none" }}
- name: tls
  secret: {secretName: {{ include "omni.tlsSecret" (dict "root" .root "component" "stage") }}, defaultMode: 0440}
- name: relay-tls
  secret: {secretName: {{ include "omni.tlsSecret" (dict "root" .root "component" "relay") }}, defaultMode: 0440}
{{- end }}
{{- if ne .values.gpu.mode "none" }}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ .values.gpu.shmSize }}}
{{- end }}
{{- if ne .weights.source "none" }}
{{ include "omni.weightsVolume" . }}
{{- end }}
{{- end }}

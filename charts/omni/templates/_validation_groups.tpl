{{/* What a schema cannot say of placement groups. */}}

{{/* Of all placement groups: (dict "root" $ "groups" […]). */}}
{{- define "omni.validate.groups" -}}
{{- $names := dict }}
{{- $sources := list }}
{{- $families := .root.Files.Get "files/families.json" | fromJson }}
{{- range $group := .groups }}
{{- $path := printf "pipelines.%s.placementGroups.%s" $group.pipeline $group.group }}
{{- include "omni.validate.scaling" (dict "path" $path "own" $group.own "values" $group.values "root" $.root) }}
{{- include "omni.validate.gpu" (dict "path" $path "group" $group "root" $.root) }}
{{- include "omni.validate.weights" (dict
  "path" (printf "%s.weights" $path) "weights" $group.weights "known" (get $families $group.family)
  "family" $group.family "root" $.root) }}
{{- include "omni.validate.weightsUnused" (dict "path" (printf "%s.weights" $path) "own" (default dict $group.own.weights) "source" $group.weights.source) }}
{{- include "omni.validate.relay" (dict "path" $path "relay" $group.values.relay "root" $.root) }}
{{- include "omni.validate.group" (dict "path" $path "group" $group) }}
{{- if hasKey $names $group.name }}
{{- fail (printf "%s and %s both make objects named '%s': give one of them another name." $path (get $names $group.name) $group.name) }}
{{- end }}
{{- $_ := set $names $group.name $path }}
{{- $sources = append $sources $group.weights.source }}
{{- if gt (len $group.name) 63 }}
{{- fail (printf "%s makes objects named '%s', longer than 63 characters: set a shorter fullnameOverride, pipeline or group." $path $group.name) }}
{{- end }}
{{- end }}
{{- range $source, $key := dict "hub" "id" "volume" "claim" "image" "reference" }}
{{- if and (get (get $.root.Values.weightsDefaults $source) $key) (not (has $source $sources)) }}
{{- fail (printf "weightsDefaults.%s.%s is set, but the weights.source of no pipeline is %s: each of the chart's own says where its weights are from." $source $key $source) }}
{{- end }}
{{- end }}
{{- end }}

{{/* What becomes labels, environments and resources of its pods. */}}
{{- define "omni.validate.group" -}}
{{- $own := .group.own }}
{{- include "omni.validate.labels" (dict "path" (printf "%s.podLabels" .path) "labels" $own.podLabels) }}
{{- include "omni.validate.environment" (dict "path" (printf "%s.relay" .path) "env" (default dict $own.relay).env) }}
{{- include "omni.validate.environment" (dict "path" (printf "%s.weights" .path) "env" (default dict $own.weights).env) }}
{{- include "omni.validate.resources" (dict "path" (printf "%s.weights" .path) "resources" .group.weights.resources) }}
{{- include "omni.validate.resources" (dict "path" (printf "%s.relay" .path) "resources" .group.values.relay.resources) }}
{{- range .group.containers }}
{{- include "omni.validate.resources" (dict "path" (printf "pipelines.%s.stages.%s" $.group.pipeline (first .stages)) "resources" .values.resources) }}
{{- end }}
{{- end }}

{{- define "omni.validate.gpu" -}}
{{- $mode := .group.values.gpu.mode }}
{{- $wanting := list }}
{{- range .group.containers }}
{{- if .gpu }}{{ $wanting = append $wanting (join "," .stages) }}{{ end }}
{{- end }}
{{- if and (ne $mode "none") (not $wanting) }}
{{- fail (printf "%s.gpu.mode is %s, but none of its stages wants a GPU: leave it at none." .path $mode) }}
{{- end }}
{{- if and (eq $mode "devicePlugin") (gt (len $wanting) 1) }}
{{- fail (printf "%s.gpu.mode is devicePlugin, which gives a GPU to one container only, but its stages %s are in different ones: give them the same process (pipelines.%s.stages.STAGE.process), or take dra." .path (join " and " $wanting) .group.pipeline) }}
{{- end }}
{{- if and (eq $mode "dra") (semverCompare "<1.34-0" .root.Capabilities.KubeVersion.Version) }}
{{- fail (printf "%s.gpu.mode is dra, which needs Kubernetes 1.34, and this is %s: take devicePlugin." .path .root.Capabilities.KubeVersion.Version) }}
{{- end }}
{{- range .group.containers }}
{{- if and (hasPrefix "cuda" .values.device) (not .gpu) }}
{{- fail (printf "pipelines.%s.stages.%s.device is %s, but %s.gpu.mode gives it no GPU." $.group.pipeline (first .stages) .values.device $.path) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "omni.validate.relay" -}}
{{- $arena := int64 (include "omni.bytes" .relay.arenaSize) }}
{{- if lt $arena 33554432 }}
{{- fail (printf "%s.relay.arenaSize is %s: it needs room for two extents of 16 MiB, so 32Mi at least." .path .relay.arenaSize) }}
{{- end }}
{{- if ne .root.Values.tls.source "none" }}
{{- range .relay.transports }}
{{- if has . (list "ucx" "nixl") }}
{{- fail (printf "%s.relay.transports has %s, which moves tensors in plaintext: leave it out, or set tls.source to none on a network that only the mesh uses." $.path .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* What a schema cannot say of pipelines, their stages and placement groups. */}}

{{/* Of one pipeline, before anything is made of it: (dict "root" $ "name" …). */}}
{{- define "omni.validate.pipeline" -}}
{{- $path := printf "pipelines.%s" .name }}
{{- $given := index .root.Values.pipelines .name }}
{{- $families := .root.Files.Get "files/families.json" | fromJson }}
{{- if not $given.family }}
{{- fail (printf "%s.family is empty: it must say whose code runs, %s." $path (keys $families | sortAlpha | join ", ")) }}
{{- end }}
{{- if not (or $given.graph (hasKey $families $given.family)) }}
{{- fail (printf "%s.family is '%s', which this chart does not know: it knows %s. Give one of yours by %s.graph." $path $given.family (keys $families | sortAlpha | join ", ") $path) }}
{{- end }}
{{- $graph := $given.graph }}
{{- if not $graph }}{{ $graph = .root.Files.Get (printf "files/pipelines/%s.json" $given.family) | fromJson }}{{ end }}
{{- include "omni.validate.stages" (dict "path" $path "given" $given "graph" $graph) }}
{{- $weights := mergeOverwrite (deepCopy .root.Values.weightsDefaults) (deepCopy (default dict $given.weights)) }}
{{- include "omni.validate.weights" (dict
  "path" (printf "%s.weights" $path) "weights" $weights "known" (get $families $given.family) "family" $given.family
  "root" .root) }}
{{- end }}

{{/* Names that are not there, and stages that cannot be where they are put. */}}
{{- define "omni.validate.stages" -}}
{{- $names := list }}
{{- $groups := list }}
{{- $process := dict }}
{{- $first := dict }}
{{- range $stage := .graph.stages }}
{{- $values := default dict (get (default dict $.given.stages) $stage.name) }}
{{- $of := coalesce $values.process $stage.process $stage.name }}
{{- $group := coalesce $values.placementGroup $stage.placement_group $of }}
{{- $names = append $names $stage.name }}
{{- $groups = append $groups $group | uniq }}
{{- $path := printf "%s.stages.%s" $.path $stage.name }}
{{- $tpSize := int (default (default 1 $stage.tp_size) $values.tpSize) }}
{{- if and (gt $tpSize 1) (not $stage.tensor_parallel) }}
{{- fail (printf "%s.tpSize is %d, but the model of this stage runs on one GPU: leave it out." $path $tpSize) }}
{{- end }}
{{- $other := get $first $of }}
{{- if $other }}
{{- if ne $other.group $group }}
{{- fail (printf "%s.process is '%s', as that of stage '%s', but they are in the placement groups '%s' and '%s': a process is in one pod." $path $of $other.name $group $other.group) }}
{{- end }}
{{- range $key, $value := omit $values "placementGroup" "process" "gpu" "tpSize" "maxRunning" "maxWaiting" "maxBatchWaitMs" "credits" }}
{{- if and (hasKey $other.values $key) (ne (toJson (get $other.values $key)) (toJson $value)) }}
{{- fail (printf "%s.%s differs from that of stage '%s': they share the process '%s', and so a container; say it for one of them." $path $key $other.name $of) }}
{{- end }}
{{- end }}
{{- else }}
{{- $_ := set $first $of (dict "name" $stage.name "group" $group "values" $values) }}
{{- end }}
{{- $_ := set $process $stage.name $of }}
{{- end }}
{{- range $stage, $of := $process }}
{{- if and (has $of $names) (ne $of $stage) }}
{{- fail (printf "%s.stages.%s.process is '%s', the name of another stage: take one that is no stage's." $.path $stage $of) }}
{{- end }}
{{- end }}
{{- range $stage := .graph.stages }}
{{- range $target := concat (default list $stage.to) (default list $stage.stream_to) (default list $stage.wait_for) }}
{{- if not (has $target $names) }}
{{- fail (printf "%s.graph: stage '%s' names '%s', which is not a stage; there are %s." $.path $stage.name $target (join ", " $names)) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $stage, $_ := .given.stages }}
{{- if not (has $stage $names) }}
{{- fail (printf "%s.stages.%s: there is no such stage; there are %s." $.path $stage (join ", " $names)) }}
{{- end }}
{{- end }}
{{- range $group, $values := .given.placementGroups }}
{{- if and $values (not (has $group $groups)) }}
{{- fail (printf "%s.placementGroups.%s has no stages: no stage names it as its placementGroup; there are %s." $.path $group (join ", " $groups)) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "omni.validate.weights" -}}
{{- $weights := .weights }}
{{- if .known }}
{{- if not (has $weights.source .known.sources) }}
{{- fail (printf "%s.source is '%s', which the family '%s' does not have: take %s." .path $weights.source .family (join ", " .known.sources)) }}
{{- end }}
{{- end }}
{{- range $source, $needed := dict
  "hub" (list "hub" "id") "volume" (list "volume" "claim") "image" (list "image" "reference") }}
{{- if and (eq $weights.source $source) (not (get (get $weights (first $needed)) (last $needed))) }}
{{- fail (printf "%s.%s is empty: with %s.source %s it must say where the weights are." $.path (join "." $needed) $.path $source) }}
{{- end }}
{{- end }}
{{- if and (eq $weights.source "image") (semverCompare "<1.33-0" .root.Capabilities.KubeVersion.Version) }}
{{- fail (printf "%s.source is image: volumes from images need Kubernetes 1.33, and this is %s." .path .root.Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if and $weights.cache.claim $weights.cache.create }}
{{- fail (printf "%s.cache.claim and %s.cache.create are both set: take the claim that is there, or a new one." .path .path) }}
{{- end }}
{{- end }}

{{/* Of all placement groups: (dict "root" $ "groups" […]). */}}
{{- define "omni.validate.groups" -}}
{{- $names := dict }}
{{- $families := .root.Files.Get "files/families.json" | fromJson }}
{{- range $group := .groups }}
{{- $path := printf "pipelines.%s.placementGroups.%s" $group.pipeline $group.group }}
{{- include "omni.validate.scaling" (dict "path" $path "own" $group.own "values" $group.values "root" $.root) }}
{{- include "omni.validate.gpu" (dict "path" $path "group" $group "root" $.root) }}
{{- include "omni.validate.weights" (dict
  "path" (printf "%s.weights" $path) "weights" $group.weights "known" (get $families $group.family)
  "family" $group.family "root" $.root) }}
{{- include "omni.validate.relay" (dict "path" $path "relay" $group.values.relay "root" $.root) }}
{{- if hasKey $names $group.name }}
{{- fail (printf "%s and %s both make objects named '%s': give one of them another name." $path (get $names $group.name) $group.name) }}
{{- end }}
{{- $_ := set $names $group.name $path }}
{{- if gt (len $group.name) 63 }}
{{- fail (printf "%s makes objects named '%s', longer than 63 characters: set a shorter fullnameOverride, pipeline or group." $path $group.name) }}
{{- end }}
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

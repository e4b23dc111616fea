{{/* Pure: from the values and the models' descriptions to pipelines, placement groups and edges, as JSON. */}}

{{/* The pipelines that are served: names, as JSON. */}}
{{- define "omni.served" -}}
{{- $names := list }}
{{- range $name, $pipeline := .Values.pipelines }}
{{- if and (kindIs "map" $pipeline) (ne (toString $pipeline.enabled) "false") }}{{ $names = append $names $name }}{{ end }}
{{- end }}
{{- dict "names" $names | toJson }}
{{- end }}

{{/* A pipeline file: the family's description with the values over it. (dict "root" $ "name" …) */}}
{{- define "omni.pipeline" -}}
{{- $given := index .root.Values.pipelines .name }}
{{- $graph := include "omni.graph" . | fromJson }}
{{- $weights := mergeOverwrite (deepCopy .root.Values.weightsDefaults) (deepCopy (default dict $given.weights)) }}
{{- $known := default dict (get (.root.Files.Get "files/families.json" | fromJson) $given.family) }}
{{- if eq $weights.source "packaged" }}{{ $graph = mergeOverwrite $graph (default dict $known.packaged) }}{{ end }}
{{- range $key, $field := dict "voices" "voices" "defaultVoice" "default_voice" "languages" "languages" "tasks" "tasks" }}
{{- if get $given $key }}{{ $_ := set $graph $field (get $given $key) }}{{ end }}
{{- end }}
{{- $_ := set $graph "name" .name }}
{{- range $stage := $graph.stages }}
{{- /* A graph of yours may leave out what most stages have not. */}}
{{- range $field, $value := dict "to" list "stream_to" list "gpu" false "process" "" "placement_group" "" }}
{{- if not (hasKey $stage $field) }}{{ $_ := set $stage $field $value }}{{ end }}
{{- end }}
{{- $values := default dict (get (default dict $given.stages) $stage.name) }}
{{- range $key, $field := include "omni.stageFields" $ | fromJson }}
{{- if and (hasKey $values $key) (not (kindIs "invalid" (get $values $key))) }}{{ $_ := set $stage $field (get $values $key) }}{{ end }}
{{- end }}
{{- $_ := set $stage "placement_group" (coalesce $stage.placement_group $stage.process $stage.name) }}
{{- end }}
{{- toJson $graph }}
{{- end }}

{{/* Values of a stage that are fields of the pipeline file; the others are its container's. */}}
{{- define "omni.stageFields" -}}
{{- dict "placementGroup" "placement_group" "process" "process" "gpu" "gpu" "tpSize" "tp_size" "maxRunning" "max_running" "maxWaiting" "max_waiting" "maxBatchWaitMs" "max_batch_wait_ms" "credits" "credits" | toJson }}
{{- end }}

{{/* The family's description, or the one that the values hold. */}}
{{- define "omni.graph" -}}
{{- $given := index .root.Values.pipelines .name }}
{{- include "omni.validate.pipeline" . }}
{{- if $given.graph }}
{{- toJson $given.graph }}
{{- else }}
{{- .root.Files.Get (printf "files/pipelines/%s.json" $given.family) }}
{{- end }}
{{- end }}

{{/* Every placement group of every pipeline: {"groups": [{name, pipeline, group, family, values, weights, containers}]}. */}}
{{- define "omni.mesh" -}}
{{- include "omni.validate.release" . }}
{{- $groups := list }}
{{- range $name := (include "omni.served" . | fromJson).names }}
{{- $groups = concat $groups (include "omni.groups" (dict "root" $ "name" $name) | fromJson).groups }}
{{- end }}
{{- include "omni.validate.groups" (dict "root" . "groups" $groups) }}
{{- dict "groups" $groups | toJson }}
{{- end }}

{{/* The placement groups of one pipeline, in the order of its stages. (dict "root" $ "name" …) */}}
{{- define "omni.groups" -}}
{{- $values := .root.Values }}
{{- $given := index $values.pipelines .name }}
{{- $pipeline := include "omni.pipeline" . | fromJson }}
{{- include "omni.validate.described" (dict "name" .name "pipeline" $pipeline) }}
{{- $order := list }}
{{- range $pipeline.stages }}{{ $order = append $order .placement_group | uniq }}{{ end }}
{{- $groups := list }}
{{- range $group := $order }}
{{- $own := default dict (get (default dict $given.placementGroups) $group) }}
{{- $merged := mergeOverwrite (deepCopy $values.podDefaults) (deepCopy $values.groupDefaults) (deepCopy $own) }}
{{- $weights := mergeOverwrite (deepCopy $values.weightsDefaults) (deepCopy (default dict $given.weights)) (deepCopy (default dict $merged.weights)) }}
{{- $containers := (include "omni.containers" (dict
  "root" $.root "given" $given "pipeline" $pipeline "group" $group "gpu" $merged.gpu) | fromJson).containers }}
{{- range $containers }}
{{- if .gpu }}{{ $_ := set $merged.gpu "count" (max $merged.gpu.count .tpSize) }}{{ end }}
{{- end }}
{{- $groups = append $groups (dict
  "name" (include "omni.groupName" (dict "root" $.root "pipeline" $.name "group" $group)) "pipeline" $.name
  "group" $group "family" $given.family "own" $own
  "image" (mergeOverwrite (deepCopy $values.stage.image) (deepCopy (default dict $given.image))) "values" $merged
  "weights" $weights "containers" $containers) }}
{{- end }}
{{- dict "groups" $groups | toJson }}
{{- end }}

{{/* The stage containers of a placement group: one for each process, with its ports. */}}
{{- define "omni.containers" -}}
{{- $order := list }}
{{- $stages := dict }}
{{- range .pipeline.stages }}
{{- if eq .placement_group $.group }}
{{- $process := default .name .process }}
{{- $order = append $order $process | uniq }}
{{- $_ := set $stages $process (append (default list (get $stages $process)) .) }}
{{- end }}
{{- end }}
{{- $containers := list }}
{{- range $index, $process := $order }}
{{- $values := deepCopy $.root.Values.stageDefaults }}
{{- $gpu := false }}
{{- $tpSize := 1 }}
{{- $names := list }}
{{- range $stage := get $stages $process }}
{{- $names = append $names $stage.name }}
{{- $gpu = or $gpu $stage.gpu }}
{{- $tpSize = max $tpSize (int (default 1 $stage.tp_size)) }}
{{- $values = mergeOverwrite $values (deepCopy (default dict (get (default dict $.given.stages) $stage.name))) }}
{{- end }}
{{- $gpu = and $gpu (ne $.gpu.mode "none") (ne $values.device "cpu") }}
{{- $containers = append $containers (dict
  "index" $index "process" $process "stages" $names "gpu" $gpu "tpSize" $tpSize "values" $values
  "port" (add 7100 (mul 20 $index))
  "metrics" (add 9100 $index) "health" (add 9200 $index)) }}
{{- end }}
{{- dict "containers" $containers | toJson }}
{{- end }}

{{/* The edges between the placement groups of a pipeline, also from a group to itself, since its replicas may take each
     other's work: {"edges": [{from, to, ports}]}. (dict "root" $ "name" … "groups" […]) */}}
{{- define "omni.edges" -}}
{{- $group := dict }}
{{- $port := dict }}
{{- range $one := .groups }}
{{- if eq $one.pipeline $.name }}
{{- range $container := $one.containers }}
{{- range $n, $stage := $container.stages }}
{{- $_ := set $group $stage $one.group }}
{{- $_ := set $port $stage (add $container.port $n) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- $edges := dict }}
{{- range $stage := (include "omni.pipeline" . | fromJson).stages }}
{{- range $target := concat $stage.to $stage.stream_to }}
{{- $from := get $group $stage.name }}
{{- $to := get $group $target }}
{{- $key := printf "%s>%s" $from $to }}
{{- $edge := default (dict "from" $from "to" $to "ports" list) (get $edges $key) }}
{{- $_ := set $edges $key (set $edge "ports" (append $edge.ports (get $port $target) | uniq)) }}
{{- end }}
{{- end }}
{{- $list := list }}
{{- range $key := keys $edges | sortAlpha }}{{ $list = append $list (get $edges $key) }}{{ end }}
{{- dict "edges" $list | toJson }}
{{- end }}

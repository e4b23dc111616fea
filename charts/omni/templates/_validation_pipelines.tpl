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
{{- include "omni.validate.weightsUnused" (dict "path" (printf "%s.weights" $path) "own" (default dict $given.weights) "source" $weights.source) }}
{{- include "omni.validate.environment" (dict "path" (printf "%s.weights" $path) "env" (default dict $given.weights).env) }}
{{- range $stage, $values := $given.stages }}
{{- include "omni.validate.environment" (dict "path" (printf "%s.stages.%s" $path $stage) "env" (default dict $values).env) }}
{{- end }}
{{- end }}

{{/* Of a pipeline with the values over its description, as the coordinators would refuse it:
     (dict "name" … "pipeline" {…}). */}}
{{- define "omni.validate.described" -}}
{{- $path := printf "pipelines.%s" .name }}
{{- $voices := default list .pipeline.voices }}
{{- $voice := default "" .pipeline.default_voice }}
{{- if and $voices (not (has $voice $voices)) }}
{{- fail (printf "%s.defaultVoice is '%s', which is none of its voices: take one of %s." $path $voice (join ", " $voices)) }}
{{- end }}
{{- if and $voice (not $voices) }}
{{- fail (printf "%s.defaultVoice is '%s', but it has no voices: name them in %s.voices." $path $voice $path) }}
{{- end }}
{{- $needed := dict "speech" (list "text" "audio") "transcription" (list "audio" "text") "translation" (list "audio" "text") }}
{{- range $task := .pipeline.tasks }}
{{- with get $needed $task }}
{{- if not (and (has (first .) $.pipeline.input_modalities) (has (last .) $.pipeline.output_modalities)) }}
{{- fail (printf "%s.tasks has %s, which takes %s and makes %s; this pipeline takes %s and makes %s." $path $task (first .) (last .) (join ", " $.pipeline.input_modalities) (join ", " $.pipeline.output_modalities)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Weights that somebody names while random or packaged ones, or none, would be taken: (dict "path" … "own" {…} "source" "tiny").
     Beside a place that is named, what another file says of a second one may stay. */}}
{{- define "omni.validate.weightsUnused" -}}
{{- range $source, $key := dict "hub" "id" "volume" "claim" "image" "reference" }}
{{- if and (has $.source (list "tiny" "packaged" "none")) (get (default dict (get $.own $source)) $key) }}
{{- fail (printf "%s.%s.%s is set, but %s.source is %s, which does not take it: set %s.source to %s." $.path $source $key $.path $.source $.path $source) }}
{{- end }}
{{- end }}
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

{{/* Where a placement group's weights come from, and the step that puts them there. Takes a group with "root". */}}

{{/* The step; none where they are in an image, or there are none. */}}
{{- define "omni.weightsStep" -}}
{{- $weights := .weights }}
{{- if not (has $weights.source (list "none" "image")) }}
- name: weights
  image: {{ include "omni.stageImage" . }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  terminationMessagePolicy: FallbackToLogsOnError
  command: [tini, --, python, -m, omni_stage.weights]
  securityContext:
    {{- include "omni.containerSecurity" .root | nindent 4 }}
  env:
    - {name: OMNI_WEIGHTS_FAMILY, value: {{ .family | quote }}}
    - {name: OMNI_WEIGHTS_SOURCE, value: {{ $weights.source | quote }}}
    - {name: OMNI_WEIGHTS_FOLDER, value: /weights}
    - {name: OMNI_WEIGHTS_LOG_LEVEL, value: {{ .root.Values.logLevel }}}
    {{- if eq $weights.source "hub" }}
    - {name: OMNI_WEIGHTS_HUB_ID, value: {{ $weights.hub.id | quote }}}
    {{- with $weights.hub.revision }}
    - {name: OMNI_WEIGHTS_REVISION, value: {{ . | quote }}}
    {{- end }}
    {{- with $weights.hub.endpoint }}
    - {name: HF_ENDPOINT, value: {{ . | quote }}}
    {{- end }}
    {{- if $weights.hub.tokenSecret }}
    - {name: HF_TOKEN, valueFrom: {secretKeyRef: {name: {{ $weights.hub.tokenSecret }}, key: {{ $weights.hub.tokenKey }}}}}
    {{- end }}
    {{- end }}
    {{- with $weights.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  resources:
    {{- toYaml $weights.resources | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {{ include "omni.weightsMount" (merge (dict "fill" (ne $weights.source "volume")) .) }}
{{- end }}
{{- end }}

{{/* Stages only read them; the step fills them unless they are on a volume already. */}}
{{- define "omni.weightsMount" -}}
{{- $path := "" }}
{{- if eq .weights.source "volume" }}{{ $path = .weights.volume.subPath }}{{ end }}
{{- if and (or .weights.cache.claim .weights.cache.create) (not (has .weights.source (list "volume" "image"))) }}{{ $path = .pipeline }}{{ end }}
{{- $mount := dict "name" "weights" "mountPath" "/weights" }}
{{- if not .fill }}{{ $_ := set $mount "readOnly" true }}{{ end }}
{{- with $path }}{{ $_ := set $mount "subPath" . }}{{ end }}
{{- toJson $mount }}
{{- end }}

{{- define "omni.weightsVolume" -}}
{{- $weights := .weights }}
- name: weights
{{- if eq $weights.source "volume" }}
  persistentVolumeClaim: {claimName: {{ $weights.volume.claim }}, readOnly: true}
{{- else if eq $weights.source "image" }}
  image: {reference: {{ $weights.image.reference | quote }}, pullPolicy: {{ $weights.image.pullPolicy }}}
{{- else if $weights.cache.claim }}
  persistentVolumeClaim: {claimName: {{ $weights.cache.claim }}}
{{- else if $weights.cache.create }}
  persistentVolumeClaim: {claimName: {{ include "omni.weightsClaim" . }}}
{{- else }}
  emptyDir: {sizeLimit: {{ $weights.cache.size }}}
{{- end }}
{{- end }}

{{/* The claim that the chart makes: one for the pipeline, which its placement groups share. */}}
{{- define "omni.weightsClaim" -}}
{{- printf "%s-weights" (include "omni.groupName" (dict "root" .root "pipeline" .pipeline "group" "")) | replace "--" "-" }}
{{- end }}

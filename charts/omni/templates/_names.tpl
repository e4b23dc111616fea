{{/* Names, labels, images. */}}

{{- define "omni.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* All objects' names begin so. Short enough that a placement group's name still fits. */}}
{{- define "omni.fullname" -}}
{{- $name := include "omni.name" . }}
{{- if .Values.fullnameOverride }}
{{- include "omni.shortened" .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}
{{- include "omni.shortened" .Release.Name }}
{{- else }}
{{- include "omni.shortened" (printf "%s-%s" .Release.Name $name) }}
{{- end }}
{{- end }}

{{/* 40 characters at most; of a longer name, the last ones tell it apart from others that begin like it. */}}
{{- define "omni.shortened" -}}
{{- if le (len .) 40 }}{{ . }}{{ else }}{{ printf "%s-%s" (trunc 33 . | trimSuffix "-") (sha256sum . | trunc 6) }}{{ end }}
{{- end }}

{{/* Of a placement group: (dict "root" $ "pipeline" … "group" …). */}}
{{- define "omni.groupName" -}}
{{- printf "%s-%s-%s" (include "omni.fullname" .root) .pipeline .group | replace "_" "-" | replace "." "-" }}
{{- end }}

{{/* What selects pods, for ever: (dict "root" $ "component" … "pipeline" … "group" …); the last two of stages only. */}}
{{- define "omni.selector" -}}
app.kubernetes.io/name: {{ include "omni.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- if .group }}
omni.dev/pipeline: {{ .pipeline | quote }}
omni.dev/placement-group: {{ .group | quote }}
{{- end }}
{{- end }}

{{/* Of every object and pod; takes the same. */}}
{{- define "omni.labels" -}}
{{ include "omni.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: omni
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* metadata: the same, with "name" and, if there are, "annotations". */}}
{{- define "omni.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "omni.labels" . | nindent 2 }}
  helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "image" {repository, tag, digest} "suffix" "-cuda"). */}}
{{- define "omni.image" -}}
{{- $common := .root.Values.image }}
{{- $repository := .image.repository }}
{{- with $common.registry }}{{ $repository = printf "%s/%s" (trimSuffix "/" .) $repository }}{{ end }}
{{- if .image.digest }}
{{- printf "%s@%s" $repository .image.digest }}
{{- else }}
{{- printf "%s:%s%s" $repository (coalesce .image.tag $common.tag .root.Chart.AppVersion) (default "" .suffix) }}
{{- end }}
{{- end }}

{{- define "omni.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "omni.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

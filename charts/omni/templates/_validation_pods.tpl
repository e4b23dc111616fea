{{/* What a schema cannot say of what becomes names, labels, environments and resources of pods. */}}

{{/* Of the objects' names: the schema knows the values, but not the release's name. */}}
{{- define "omni.validate.names" -}}
{{- $name := include "omni.fullname" . }}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name) }}
{{- fail (printf "Objects would be named '%s-gateway', which is no name of a Service: set fullnameOverride to small letters, digits and '-', beginning with a letter." $name) }}
{{- end }}
{{- end }}

{{/* Of gateway, coordinator, helm test's pod, and what is said for all others; placement groups are looked at one by one. */}}
{{- define "omni.validate.pods" -}}
{{- include "omni.validate.labels" (dict "path" "commonLabels" "labels" .Values.commonLabels) }}
{{- range $name := list "podDefaults" "groupDefaults" "gateway" "coordinator" "stageDefaults" "weightsDefaults" }}
{{- $values := get $.Values $name }}
{{- include "omni.validate.labels" (dict "path" (printf "%s.podLabels" $name) "labels" $values.podLabels) }}
{{- include "omni.validate.environment" (dict "path" $name "env" $values.env) }}
{{- include "omni.validate.resources" (dict "path" $name "resources" $values.resources) }}
{{- end }}
{{- include "omni.validate.environment" (dict "path" "groupDefaults.relay" "env" .Values.groupDefaults.relay.env) }}
{{- include "omni.validate.resources" (dict "path" "tests" "resources" .Values.tests.resources) }}
{{- end }}

{{/* Labels that a user gives: (dict "path" "commonLabels" "labels" {…}). */}}
{{- define "omni.validate.labels" -}}
{{- range $name, $_ := .labels }}
{{- if regexMatch "^(app[.]kubernetes[.]io|omni[.]dev|helm[.]sh)/" $name }}
{{- fail (printf "%s has %s: the chart sets labels that begin so itself, and selects pods by them; take another name." $.path $name) }}
{{- end }}
{{- if not (regexMatch "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$" $name) }}
{{- fail (printf "%s has '%s', which is no name of a label." $.path $name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Variables that a user gives: (dict "path" "gateway" "env" […]). */}}
{{- define "omni.validate.environment" -}}
{{- range $index, $one := .env }}
{{- if hasPrefix "OMNI_" $one.name }}
{{- fail (printf "%s.env[%d].name is %s: what begins with OMNI_ is set by the chart's values, so see %s.settings and the values of that name." $.path $index $one.name $.path) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Kubernetes takes no pod that asks for more than it may have: (dict "path" "gateway" "resources" {…}). */}}
{{- define "omni.validate.resources" -}}
{{- $limits := default dict (default dict .resources).limits }}
{{- range $name, $wanted := (default dict .resources).requests }}
{{- $limit := get $limits $name }}
{{- if and (not (kindIs "invalid" $wanted)) (hasKey $limits $name) (not (kindIs "invalid" $limit)) }}
{{- if gt (include "omni.amount" $wanted | float64) (include "omni.amount" $limit | float64) }}
{{- fail (printf "%s.resources.requests.%s is %v, above %s.resources.limits.%s, which is %v." $.path $name $wanted $.path $name $limit) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Of objects that a user adds; each may be several, or none. */}}
{{- define "omni.validate.extraObjects" -}}
{{- range $index, $object := .Values.extraObjects }}
{{- range splitList "\n---" (printf "\n%s" (include "omni.extraObject" (dict "root" $ "object" $object))) }}
{{- $made := fromYaml (trimPrefix "---" (trim .)) }}
{{- if and $made (not (and $made.apiVersion $made.kind)) }}
{{- fail (printf "extraObjects[%d] makes no object of Kubernetes: there is no apiVersion and kind in %q." $index (trim . | trunc 60)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

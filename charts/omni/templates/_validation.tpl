{{/* What a schema cannot say; every failure is a sentence that names the value. */}}
{{- define "omni.validate.release" -}}{{- end }}
{{- define "omni.validate.pipeline" -}}{{- end }}
{{- define "omni.validate.groups" -}}{{- end }}

{{/* Quantities and durations as numbers. */}}

{{/* Bytes of a quantity such as 256Mi. */}}
{{- define "omni.bytes" -}}
{{- $units := dict
  "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000
  "" 1 }}
{{- $quantity := kindIs "float64" . | ternary (int64 . | toString) (toString .) }}
{{- $number := regexFind "^[0-9]+" $quantity }}
{{- mul (int64 $number) (get $units (trimPrefix $number $quantity)) }}
{{- end }}

{{/* Bytes as a quantity of Mi, rounded up. */}}
{{- define "omni.mebibytes" -}}
{{- printf "%dMi" (div (add (int64 .) 1048575) 1048576) }}
{{- end }}

{{/* Seconds of a duration such as 10m. */}}
{{- define "omni.seconds" -}}
{{- $units := dict "s" 1 "m" 60 "h" 3600 }}
{{- $number := regexFind "^[0-9]+" . }}
{{- mul (int64 $number) (get $units (trimPrefix $number .)) }}
{{- end }}

{{/* How long a pod may take to end: the pause, the longest request, and a rest. (dict "root" $ "values" …) */}}
{{- define "omni.grace" -}}
{{- add (int64 .values.preStopSeconds) (int64 (include "omni.seconds" .root.Values.requestTimeout)) 30 }}
{{- end }}

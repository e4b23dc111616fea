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

{{/* A quantity as a number, for comparing: 250m of cpu, 1.5Gi, 2. */}}
{{- define "omni.amount" -}}
{{- $units := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15
  "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 }}
{{- $quantity := kindIs "string" . | ternary . (printf "%.3f" (float64 .)) }}
{{- $number := regexFind "^[0-9]+([.][0-9]+)?" $quantity }}
{{- mulf (float64 $number) (get $units (trimPrefix $number $quantity)) }}
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

{{/* Whether a text is an address of IPv4 or IPv6. */}}
{{- define "omni.isAddress" -}}
{{- $part := "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])" }}
{{- $four := regexMatch (printf "^(%s[.]){3}%s$" $part $part) . }}
{{- $groups := regexFindAll "[0-9A-Fa-f]+" . -1 | len }}
{{- $shaped := regexMatch "^(::|(::)?([0-9A-Fa-f]{1,4}(:|::|$))*)$" . }}
{{- $gaps := regexFindAll "::" . -1 | len }}
{{- $six := and $shaped (not (regexMatch "[^:]:$" .)) (or (and (eq $gaps 0) (eq $groups 8)) (and (eq $gaps 1) (lt $groups 8))) }}
{{- if or $four $six }}true{{ end }}
{{- end }}

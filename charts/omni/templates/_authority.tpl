{{/* The chart's own CA over the years. In the last third of its time upgrades put another in its place, in three steps
     with an hour between them, in which everybody reads what the one before has written:
       1. the next CA is made, and trusted beside the one that signs;
       2. it signs: every certificate is made anew; the one before is still trusted;
       3. the one before is forgotten.
     So there is no moment at which running pods distrust each other. */}}

{{/* Its Secret as it is to be: {data, notes}, both of text; what is trusted: the PEM in "trust"; what signs: {Cert, Key}
     in "ca", which ends at "expires". JSON. (dict "root" $ "name" …) */}}
{{- define "omni.authority" -}}
{{- $step := "omni.dev/changed-at" }}
{{- $now := now | unixEpoch | int64 }}
{{- $there := include "omni.existing" . | fromJson }}
{{- $data := dict }}
{{- range $key, $value := default dict $there.data }}{{ $_ := set $data $key (b64dec $value) }}{{ end }}
{{- $notes := include "omni.authorityNotes" (dict "there" $there "days" .root.Values.tls.selfSigned.caDays) | fromJson }}
{{- $settled := ge $now (add (int64 (default "0" (get $notes $step))) 3600) }}
{{- $fresh := include "omni.newAuthority" .root | fromJson }}
{{- if or (not (hasKey $data "tls.key")) (le (int64 (get $notes "omni.dev/expires")) $now) }}
{{- $data = dict "tls.crt" $fresh.Cert "tls.key" $fresh.Key }}
{{- $notes = dict "omni.dev/expires" $fresh.expires "omni.dev/renew-after" $fresh.renew $step (toString $now) }}
{{- else if not $settled }}
{{- else if hasKey $data "next.key" }}
{{- $data = dict "tls.crt" (get $data "next.crt") "tls.key" (get $data "next.key") "before.crt" (get $data "tls.crt") }}
{{- $notes = dict "omni.dev/expires" (get $notes "omni.dev/next-expires") "omni.dev/renew-after" (get $notes "omni.dev/next-renew-after") $step (toString $now) }}
{{- else if hasKey $data "before.crt" }}
{{- $data = omit $data "before.crt" }}
{{- $notes = set $notes $step (toString $now) }}
{{- else if ge $now (int64 (get $notes "omni.dev/renew-after")) }}
{{- $data = merge $data (dict "next.crt" $fresh.Cert "next.key" $fresh.Key) }}
{{- $notes = merge (dict "omni.dev/next-expires" $fresh.expires "omni.dev/next-renew-after" $fresh.renew $step (toString $now)) $notes }}
{{- end }}
{{- $trust := list (get $data "tls.crt") (get $data "next.crt") (get $data "before.crt") | compact | join "\n" }}
{{- dict "data" $data "notes" $notes "trust" $trust "expires" (get $notes "omni.dev/expires")
  "ca" (dict "Cert" (get $data "tls.crt") "Key" (get $data "tls.key")) | toJson }}
{{- end }}

{{/* What is noted of it. One from before there were notes was made with its Secret. JSON. */}}
{{- define "omni.authorityNotes" -}}
{{- $notes := dict }}
{{- range $name, $value := default dict (dig "metadata" "annotations" dict .there) }}
{{- if hasPrefix "omni.dev/" $name }}{{ $_ := set $notes $name $value }}{{ end }}
{{- end }}
{{- if and (not (hasKey $notes "omni.dev/expires")) (hasKey .there "data") }}
{{- $made := dig "metadata" "creationTimestamp" "" .there | toDate "2006-01-02T15:04:05Z" | unixEpoch | int64 }}
{{- $notes = merge (dict
  "omni.dev/expires" (add $made (mul (int64 .days) 86400) | toString)
  "omni.dev/renew-after" (add $made (mul (int64 .days) 57600) | toString)) $notes }}
{{- end }}
{{- toJson $notes }}
{{- end }}

{{/* {Cert, Key, expires, renew}: in its last third it is to be renewed. JSON. */}}
{{- define "omni.newAuthority" -}}
{{- $days := int64 .Values.tls.selfSigned.caDays }}
{{- $now := now | unixEpoch | int64 }}
{{- $name := printf "omni %s %s" .Release.Namespace .Release.Name | trunc 64 }}
{{- $made := genCAWithKey $name (int $days) (genPrivateKey "ecdsa") }}
{{- dict "Cert" $made.Cert "Key" $made.Key
  "expires" (add $now (mul $days 86400) | toString) "renew" (add $now (mul $days 57600) | toString) | toJson }}
{{- end }}

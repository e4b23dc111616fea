{{/* What a schema cannot say of certificates and keys. */}}

{{/* Values that nobody would read, so that somebody relies on them in vain:
     (dict "values" {…} "path" "tls.https" "used" false "else" "why it is not"). */}}
{{- define "omni.validate.unused" -}}
{{- range $name, $value := .values }}
{{- if and $value (not $.used) }}
{{- fail (printf "%s.%s is set, but %s: it would be ignored, so leave it out or set the other." $.path $name $.else) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "omni.validate.tls" -}}
{{- $tls := .Values.tls }}
{{- if eq $tls.source "existingSecrets" }}
{{- range $component, $name := $tls.existingSecrets }}
{{- if not $name }}
{{- fail (printf "tls.existingSecrets.%s is empty: with tls.source existingSecrets it must name a Secret with tls.crt, tls.key and ca.crt." $component) }}
{{- end }}
{{- include "omni.validate.secret" (dict "root" $ "path" (printf "tls.existingSecrets.%s" $component) "name" $name "keys" (list "tls.crt" "tls.key" "ca.crt")) }}
{{- end }}
{{- end }}
{{- include "omni.validate.unused" (dict "values" $tls.existingSecrets "path" "tls.existingSecrets" "used" (eq $tls.source "existingSecrets")
  "else" (printf "tls.source is %s" $tls.source)) }}
{{- $managed := or (eq $tls.source "certManager") (eq (include "omni.httpsSource" .) "certManager") }}
{{- include "omni.validate.unused" (dict "values" (pick $tls.certManager.issuer "name") "path" "tls.certManager.issuer" "used" $managed
  "else" (printf "tls.source is %s" $tls.source)) }}
{{- $duration := int64 (include "omni.seconds" $tls.certManager.duration) }}
{{- if lt $duration 3600 }}
{{- fail (printf "tls.certManager.duration is %s: cert-manager makes no certificate for less than an hour." $tls.certManager.duration) }}
{{- end }}
{{- if ge (int64 (include "omni.seconds" $tls.certManager.renewBefore)) $duration }}
{{- fail (printf "tls.certManager.renewBefore is %s, not less than tls.certManager.duration, which is %s: certificates would be renewed for ever." $tls.certManager.renewBefore $tls.certManager.duration) }}
{{- end }}
{{- end }}

{{/* Of the certificate of the HTTPS port. */}}
{{- define "omni.validate.https" -}}
{{- $tls := .Values.tls }}
{{- $source := include "omni.httpsSource" . }}
{{- $else := printf "the HTTPS certificate's source is %s (tls.https.source, or tls.source)" $source }}
{{- include "omni.validate.unused" (dict "values" (pick $tls.https "existingSecret") "path" "tls.https" "used" (eq $source "existingSecret") "else" $else) }}
{{- include "omni.validate.unused" (dict "values" (pick $tls.https.issuer "name") "path" "tls.https.issuer" "used" (eq $source "certManager") "else" $else) }}
{{- include "omni.validate.unused" (dict "values" (pick $tls.https "existingSecretCA") "path" "tls.https" "used" (include "omni.httpsForeign" .) "else" $else) }}
{{- range $tls.https.addresses }}
{{- if not (include "omni.isAddress" .) }}
{{- fail (printf "tls.https.addresses has '%s', which is no IP address." .) }}
{{- end }}
{{- end }}
{{- if eq (include "omni.httpsSource" .) "existingSecret" }}
{{- $keys := list "tls.crt" "tls.key" }}
{{- with $tls.https.existingSecretCA }}{{ $keys = append $keys . }}{{ end }}
{{- if not $tls.https.existingSecret }}
{{- fail "tls.https.existingSecret is empty: the certificate of the HTTPS port is to come from a Secret, which it must name (or set tls.https.source)." }}
{{- end }}
{{- if and .Values.tests.enabled (not $tls.https.existingSecretCA) (not $tls.https.hosts) }}
{{- fail (printf "tls.https.hosts is empty: name what the certificate in '%s' is for, since the public trusts none for names of Services, which helm test would ask for (or set tests.enabled to false)." $tls.https.existingSecret) }}
{{- end }}
{{- include "omni.validate.secret" (dict "root" . "path" "tls.https.existingSecret" "name" $tls.https.existingSecret "keys" $keys) }}
{{- else if and (include "omni.httpsForeign" .) (not $tls.https.hosts) }}
{{- fail (printf "tls.https.hosts is empty: the issuer '%s' (tls.https.issuer.name) is asked for a certificate of these names, so name one." $tls.https.issuer.name) }}
{{- end }}
{{- end }}

{{- define "omni.validate.auth" -}}
{{- $auth := .Values.auth }}
{{- include "omni.validate.unused" (dict "values" (pick $auth "keys" "existingSecret") "path" "auth" "used" $auth.enabled
  "else" "auth.enabled is false, so that nobody would be asked for a key") }}
{{- range $name, $_ := $auth.keys }}
{{- if not (regexMatch "^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$" $name) }}
{{- fail (printf "auth.keys has '%s': a name has 1 to 64 letters, digits and any of '._@-', and begins with one of the first two." $name) }}
{{- end }}
{{- end }}
{{- if $auth.enabled }}
{{- if and $auth.keys $auth.existingSecret }}
{{- fail "auth.keys and auth.existingSecret are both set: the keys come from one of them." }}
{{- end }}
{{- if not (or $auth.keys $auth.existingSecret) }}
{{- fail "auth.keys is empty: with auth.enabled nobody could call; give a key's hash there, or a Secret in auth.existingSecret." }}
{{- end }}
{{- with $auth.existingSecret }}
{{- include "omni.validate.secret" (dict "root" $ "path" "auth.existingSecret" "name" . "keys" (list "keys.json")) }}
{{- end }}
{{- end }}
{{- if and .Values.tests.apiKeySecret $auth.enabled }}
{{- include "omni.validate.secret" (dict "root" . "path" "tests.apiKeySecret" "name" .Values.tests.apiKeySecret "keys" (list .Values.tests.apiKeyKey)) }}
{{- end }}
{{- end }}

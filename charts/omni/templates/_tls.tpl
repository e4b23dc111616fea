{{/* Certificates: who has which, and how the chart keeps its own. */}}

{{- define "omni.tlsSecret" -}}
{{- if eq .root.Values.tls.source "existingSecrets" }}
{{- get .root.Values.tls.existingSecrets .component }}
{{- else }}
{{- printf "%s-%s-tls" (include "omni.fullname" .root) .component }}
{{- end }}
{{- end }}

{{/* Where the certificate of the HTTPS port comes from. */}}
{{- define "omni.httpsSource" -}}
{{- if .Values.tls.https.source }}
{{- .Values.tls.https.source }}
{{- else if eq .Values.tls.source "existingSecrets" }}existingSecret
{{- else }}
{{- .Values.tls.source }}
{{- end }}
{{- end }}

{{- define "omni.httpsSecret" -}}
{{- if eq (include "omni.httpsSource" .) "existingSecret" }}
{{- .Values.tls.https.existingSecret }}
{{- else }}
{{- printf "%s-https" (include "omni.fullname" .) }}
{{- end }}
{{- end }}

{{/* Whether the HTTPS certificate comes from outside: from a Secret that is there, or an issuer that is not the mesh's. It
     need not be for the Service's names, and a public one cannot be: it is for tls.https.hosts. */}}
{{- define "omni.httpsForeign" -}}
{{- $source := include "omni.httpsSource" . }}
{{- if or (eq $source "existingSecret") (and (eq $source "certManager") .Values.tls.https.issuer.name) }}true{{ end }}
{{- end }}

{{/* The name under which callers inside know it, where that is not the Service's: the first one, and one of those that a
     wildcard means. */}}
{{- define "omni.httpsHost" -}}
{{- if and (include "omni.httpsForeign" .) .Values.tls.https.hosts }}
{{- regexReplaceAll "^[*]" (first .Values.tls.https.hosts) "omni" }}
{{- end }}
{{- end }}

{{/* The key of its Secret with the CA that callers have to trust; nothing where public ones are trusted. */}}
{{- define "omni.httpsCA" -}}
{{- if eq (include "omni.httpsSource" .) "none" }}
{{- else if include "omni.httpsForeign" . }}
{{- .Values.tls.https.existingSecretCA }}
{{- else }}ca.crt
{{- end }}
{{- end }}

{{/* Names and addresses of the HTTPS certificate that is asked for: the Service's, localhost for port-forward, and the
     user's. Only the user's from an issuer that is not the mesh's: one that the public trusts refuses all others. JSON. */}}
{{- define "omni.httpsNames" -}}
{{- if include "omni.httpsForeign" . }}
{{- dict "names" (default list .Values.tls.https.hosts | uniq) "addresses" (default list .Values.tls.https.addresses | uniq) | toJson }}
{{- else }}
{{- $service := printf "%s-gateway" (include "omni.fullname" .) }}
{{- $namespace := .Release.Namespace }}
{{- $names := list $service (printf "%s.%s" $service $namespace) (printf "%s.%s.svc" $service $namespace) (printf "%s.%s.svc.cluster.local" $service $namespace) "localhost" }}
{{- $names = concat $names (default list .Values.tls.https.hosts) (default list .Values.gateway.ingress.hosts) (default list .Values.gateway.route.hostnames) | uniq }}
{{- dict "names" $names "addresses" (concat (list "127.0.0.1") (default list .Values.tls.https.addresses) | uniq) | toJson }}
{{- end }}
{{- end }}

{{/* A Secret that is there already, when a cluster is asked (helm template asks none). JSON. */}}
{{- define "omni.existing" -}}
{{- default dict (lookup "v1" "Secret" .root.Release.Namespace .name) | toJson }}
{{- end }}

{{/* A certificate: the one that is there, unless it is of another CA, for other names, or in its last third. None is for
     longer than its CA. (dict "root" $ "name" … "component" … "authority" {ca, trust, expires} "names" […] "addresses" […]) */}}
{{- define "omni.certificate" -}}
{{- $now := now | unixEpoch | int64 }}
{{- $ca := .authority.ca }}
{{- $left := div (sub (int64 .authority.expires) $now) 86400 | max 1 }}
{{- $days := min (int64 .root.Values.tls.selfSigned.days) $left }}
{{- $there := include "omni.existing" . | fromJson }}
{{- $data := default dict $there.data }}
{{- $notes := default dict (dig "metadata" "annotations" dict $there) }}
{{- $made := printf "%s %s" (sha256sum $ca.Cert) (join "," (concat .names .addresses)) | sha256sum | trunc 16 }}
{{- $renew := add $now (mul $days 57600) }}
{{- $kept := and (eq (default "" (get $notes "omni.dev/made-for")) $made) (gt (int64 (default "0" (get $notes "omni.dev/renew-after"))) $now) (hasKey $data "tls.crt") }}
apiVersion: v1
kind: Secret
metadata:
  {{- $keep := dict
    "omni.dev/made-for" $made
    "omni.dev/renew-after" (ternary (default "0" (get $notes "omni.dev/renew-after")) (toString $renew) $kept) }}
  {{- include "omni.metadata" (dict "root" .root "name" .name "component" .component "annotations" $keep) | nindent 2 }}
type: kubernetes.io/tls
data:
  ca.crt: {{ .authority.trust | b64enc }}
  {{- if $kept }}
  tls.crt: {{ get $data "tls.crt" }}
  tls.key: {{ get $data "tls.key" }}
  {{- else }}
  {{- $made := genSignedCertWithKey (first .names) .addresses .names (int $days) (buildCustomCert (b64enc $ca.Cert) (b64enc $ca.Key)) (genPrivateKey "ecdsa") }}
  tls.crt: {{ $made.Cert | b64enc }}
  tls.key: {{ $made.Key | b64enc }}
  {{- end }}
{{- end }}

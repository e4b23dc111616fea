#!/usr/bin/env bash
# Makes what omni.yaml and omni-gpu.yaml find in Secrets: a CA for this mesh only, a certificate for each component and one
# for HTTPS. Writes the Secrets as manifests to standard output and keeps nothing:
#   k8s/plain/certificates.sh | kubectl apply --namespace omni --filename -
# Again, with a new CA, before they expire. Every part of the mesh must then have its new certificate before it speaks to
# another, so restart the Deployments afterwards; cert-manager (omni-cert-manager.yaml) does all that by itself.
#   NAMESPACE=omni     whose gateway the HTTPS certificate is for
#   HOSTS=a.example,…  further names of it
#   DAYS=397           how long all of them are valid
set -euo pipefail
namespace=${NAMESPACE:-omni}
hosts=${HOSTS:-}
days=${DAYS:-397}
[[ $days =~ ^[1-9][0-9]*$ ]] || { echo "certificates: DAYS is '$days', which is no number of days" >&2; exit 1; }
command -v openssl >/dev/null || { echo "certificates: it needs openssl" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
umask 077

key() { openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1.key"; }

key ca
openssl req -x509 -new -sha256 -key ca.key -days "$days" -subj "/CN=omni $namespace" \
	-addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign -out ca.crt

# NAME SUBJECT_ALTERNATIVE_NAMES: a Secret of that name.
secret() {
	key "$1"
	printf '%s\n' "subjectAltName=$2" basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature \
		extendedKeyUsage=serverAuth,clientAuth >"$1.ext"
	openssl req -new -sha256 -key "$1.key" -subj "/CN=$1" -out "$1.csr"
	openssl x509 -req -sha256 -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days "$days" -extfile "$1.ext" \
		-out "$1.crt" 2>/dev/null
	cat <<-END
	---
	apiVersion: v1
	kind: Secret
	metadata: {name: $1}
	type: kubernetes.io/tls
	data:
	  ca.crt: $(base64 <ca.crt | tr -d '\n')
	  tls.crt: $(base64 <"$1.crt" | tr -d '\n')
	  tls.key: $(base64 <"$1.key" | tr -d '\n')
	END
}

for component in gateway coordinator stage relay; do
	secret "omni-$component-tls" "DNS:omni-$component"
done
service=omni-gateway
names="DNS:$service,DNS:$service.$namespace,DNS:$service.$namespace.svc,DNS:$service.$namespace.svc.cluster.local"
names+=",DNS:localhost,IP:127.0.0.1"
for host in ${hosts//,/ }; do names+=",DNS:$host"; done
secret omni-https "$names"

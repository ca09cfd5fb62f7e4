{{/* The container, without the dash before it: for `containers`, or with native for `initContainers`. */}}
{{- define "nightporter.container" -}}
{{- include "nightporter.check" . -}}
{{- $values := .values -}}
{{- $root := .root -}}
{{- $files := fromJson (include "nightporter.files" .) -}}
name: nightporter
image: {{ include "nightporter.image" . | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
{{- if .native }}
restartPolicy: Always
{{- end }}
args: {{ concat (list "serve") $values.extraArgs | toRawJson }}
ports:
  - name: nightporter
    containerPort: {{ $values.ports.http }}
    protocol: TCP
  - name: np-operations
    containerPort: {{ $values.ports.operations }}
    protocol: TCP
  {{- if $values.forwardAuth.enabled }}
  - name: np-auth
    containerPort: {{ $values.ports.auth }}
    protocol: TCP
  {{- end }}
env:
  {{- if eq $values.configIn "environment" }}
  {{- include "nightporter.environment" . | nindent 2 }}
  {{- else }}
  - name: NIGHTPORTER_CONFIG
    value: /etc/nightporter/nightporter.toml
  {{- end }}
  - name: NIGHTPORTER_LISTEN
    value: {{ printf "%s:%d" $values.ports.address (int $values.ports.http) | quote }}
  - name: NIGHTPORTER_OPERATIONS_LISTEN
    value: {{ printf "%s:%d" $values.ports.address (int $values.ports.operations) | quote }}
  {{- if $values.forwardAuth.enabled }}
  - name: NIGHTPORTER_FORWARD_AUTH_LISTEN
    value: {{ printf "%s:%d" $values.ports.address (int $values.ports.auth) | quote }}
  {{- end }}
  {{- range $path, $variable := dict "client-secret" "CLIENT_SECRET" "client-secret-next" "CLIENT_SECRET_NEXT" "client-key" "CLIENT_KEY" "cookie-keys" "COOKIE_KEYS" "store-url" "STORE" "store-password" "STORE_PASSWORD" "sentinel-password" "STORE_SENTINEL_PASSWORD" "store-ca" "STORE_CA" "store-cert" "STORE_CERT" "store-key" "STORE_KEY" }}
  {{- if hasKey $files $path }}
  - name: NIGHTPORTER_{{ $variable }}_FILE
    value: /run/secrets/nightporter/{{ $path }}
  {{- end }}
  {{- end }}
  {{- if or $values.ca.configMap $values.ca.secret }}
  - name: NIGHTPORTER_CA_FILE
    value: /etc/nightporter-ca/ca.crt
  {{- end }}
  {{- if include "nightporter.journal" . }}
  - name: NIGHTPORTER_JOURNAL_DIR
    value: /var/lib/nightporter/journal
  {{- end }}
  {{- with $values.extraEnv }}
  {{- include "nightporter.yaml" (dict "root" $root "value" .) | nindent 2 }}
  {{- end }}
{{- with $values.extraEnvFrom }}
envFrom:
  {{- include "nightporter.yaml" (dict "root" $root "value" .) | nindent 2 }}
{{- end }}
lifecycle:
  preStop:
    {{- if .native }}
    httpGet: # it ends after the app; kept-alive connections must be gone before
      path: /let-go
      port: np-operations
    {{- else }}
    sleep:
      seconds: {{ $values.drain.sleepSeconds }}
    {{- end }}
{{- with $values.probes.startup }}
startupProbe:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.probes.liveness }}
livenessProbe:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.probes.readiness }}
{{- $probe := deepCopy . }}
{{- if and (or $.native $.sidecar) (eq (dig "httpGet" "path" "" .) "/readyz") }}
{{- $_ := set $probe.httpGet "path" "/readyz/app" }}
{{- end }}
readinessProbe:
  {{- toYaml $probe | nindent 2 }}
{{- end }}
resources:
  {{- toYaml $values.resources | nindent 2 }}
securityContext:
  {{- toYaml $values.securityContext | nindent 2 }}
{{- $mounts := include "nightporter.mounts" . }}
{{- with trim $mounts }}
volumeMounts:
  {{- . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* For the app's own container in a pod with a sidecar: it serves on while the endpoints forget the pod. */}}
{{- define "nightporter.appLifecycle" -}}
preStop:
  sleep:
    seconds: {{ add .values.drain.sleepSeconds 5 }}
{{- end -}}

{{- define "nightporter.journal" -}}
{{- if and .values.journal.enabled (not (.values.config.journal | default dict).dir) }}yes{{ end -}}
{{- end -}}

{{- define "nightporter.mounts" -}}
{{- $values := .values -}}
{{- if ne $values.configIn "environment" }}
- name: nightporter-config
  mountPath: /etc/nightporter
  readOnly: true
{{- end }}
{{- if or (fromJson (include "nightporter.files" .)) $values.secrets.extra }}
- name: nightporter-secrets
  mountPath: /run/secrets/nightporter
  readOnly: true
{{- end }}
{{- if or $values.ca.configMap $values.ca.secret }}
- name: nightporter-ca
  mountPath: /etc/nightporter-ca
  readOnly: true
{{- end }}
{{- if include "nightporter.journal" . }}
- name: nightporter-journal
  mountPath: /var/lib/nightporter/journal
{{- end }}
{{- with .mounts }}
{{ toYaml . }}
{{- end }}
{{- with $values.extraVolumeMounts }}
{{ include "nightporter.yaml" (dict "root" $.root "value" .) }}
{{- end }}
{{- end -}}

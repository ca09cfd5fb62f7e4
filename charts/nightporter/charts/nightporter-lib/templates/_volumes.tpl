{{/*
The volumes that the container mounts, as items of a pod's `volumes`. Secrets come as one projected
volume: a change of any of them shows in the files within a minute or so, without a restart.
*/}}
{{- define "nightporter.volumes" -}}
{{- include "nightporter.volumes.lines" . | trim -}}
{{- end -}}

{{- define "nightporter.volumes.lines" -}}
{{- $values := .values -}}
{{- $root := .root -}}
{{- $files := fromJson (include "nightporter.files" .) -}}
{{- if ne $values.configIn "environment" }}
- name: nightporter-config
  configMap:
    name: {{ include "nightporter.fullname" . }}
{{- end }}
{{- if or $files $values.secrets.extra }}
- name: nightporter-secrets
  projected:
    defaultMode: 0444
    sources:
      {{- range $path, $found := $files }}
      - secret:
          name: {{ $found.secret }}
          items:
            - key: {{ $found.key }}
              path: {{ $path }}
      {{- end }}
      {{- range $values.secrets.extra }}
      - secret:
          name: {{ include "nightporter.text" (dict "root" $root "text" .name) }}
          items:
            - key: {{ .key }}
              path: {{ .path }}
      {{- end }}
{{- end }}
{{- if $values.ca.configMap }}
- name: nightporter-ca
  configMap:
    name: {{ include "nightporter.text" (dict "root" $root "text" $values.ca.configMap) }}
    items:
      - key: {{ $values.ca.key }}
        path: ca.crt
{{- else if $values.ca.secret }}
- name: nightporter-ca
  secret:
    secretName: {{ include "nightporter.text" (dict "root" $root "text" $values.ca.secret) }}
    items:
      - key: {{ $values.ca.key }}
        path: ca.crt
{{- end }}
{{- if include "nightporter.journal" . }}
- name: nightporter-journal
  {{- if $values.journal.volume }}
  {{- include "nightporter.yaml" (dict "root" $root "value" $values.journal.volume) | nindent 2 }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ $values.journal.sizeLimit }}
  {{- end }}
{{- end }}
{{- with $values.extraVolumes }}
{{ include "nightporter.yaml" (dict "root" $root "value" .) }}
{{- end }}
{{- end -}}

{{/* For the pod's annotations: a change of the settings rolls the pods. */}}
{{- define "nightporter.annotations" -}}
checksum/nightporter: {{ include "nightporter.toml" . | sha256sum }}
{{- end -}}

{{/* The ConfigMap as a whole object; nothing with `configIn: environment`. */}}
{{- define "nightporter.configMap" -}}
{{- if ne .values.configIn "environment" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "nightporter.fullname" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "nightporter.labels" . | nindent 4 }}
data:
  nightporter.toml: |
    {{- include "nightporter.toml" . | nindent 4 }}
{{- end -}}
{{- end -}}

{{- define "nightporter.labels" -}}
app.kubernetes.io/name: nightporter
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ include "nightporter.version" . | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

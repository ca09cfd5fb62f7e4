{{/*
Names. Every template of this library takes one dictionary:

  root     the caller's own `$`
  values   the values that values.yaml of this library declares
  native   true for a native sidecar (an init container that stays)
  sidecar  true for a plain one beside the app
  mounts   further mounts of the container, for volumes that the caller brings

  {{- include "nightporter.container" (dict "root" $ "values" .Values.nightporter "native" true) | nindent 10 }}
*/}}

{{/* The version of Nightporter that this chart belongs to. */}}
{{- define "nightporter.version" -}}0.1.0{{- end -}}

{{/* A text that may be a template. Takes root and text. */}}
{{- define "nightporter.text" -}}
{{- if contains "{{" .text }}{{ tpl .text .root }}{{ else }}{{ .text }}{{ end -}}
{{- end -}}

{{/* Any value that may hold templates, as YAML. Takes root and value. */}}
{{- define "nightporter.yaml" -}}
{{- include "nightporter.text" (dict "root" .root "text" (toYaml .value)) -}}
{{- end -}}

{{/* Base name of the objects that belong to a Nightporter: the release's, with "nightporter" in it. */}}
{{- define "nightporter.fullname" -}}
{{- if not (hasKey .values "securityContext") -}}
{{- fail "nightporter: `values` lacks the library's defaults. Depend on nightporter-lib with an alias and pass .Values.<alias>, e.g. (dict \"root\" $ \"values\" .Values.nightporter)" -}}
{{- end -}}
{{- if .values.fullnameOverride -}}
{{- include "nightporter.text" (dict "root" .root "text" .values.fullnameOverride) | trunc 52 | trimSuffix "-" -}}
{{- else if contains "nightporter" .root.Release.Name -}}
{{- .root.Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-nightporter" (.root.Release.Name | trunc 40 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "nightporter.image" -}}
{{- $image := .values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (include "nightporter.version" .) }}
{{- end -}}
{{- end -}}

{{/* The Secret that holds one thing: its own name, else the common one. Takes root, values, which. */}}
{{- define "nightporter.secretName" -}}
{{- $name := (index .values.secrets .which).name | default .values.secrets.name -}}
{{- include "nightporter.text" (dict "root" .root "text" $name) -}}
{{- end -}}

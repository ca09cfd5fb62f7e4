{{/* Settings: `config` as a TOML file, or as variables. */}}

{{/* One value as TOML. JSON's strings are TOML's; numbers from YAML are floats and whole ones must not look it. Takes root and value. */}}
{{- define "nightporter.toml.value" -}}
{{- $root := .root -}}
{{- if kindIs "string" .value -}}
{{- include "nightporter.text" (dict "root" $root "text" .value) | toRawJson -}}
{{- else if kindIs "bool" .value -}}
{{- .value -}}
{{- else if kindIs "slice" .value -}}
{{- $items := list -}}
{{- range .value -}}{{- $items = append $items (include "nightporter.toml.value" (dict "root" $root "value" .)) -}}{{- end -}}
[{{ join ", " $items }}]
{{- else if kindIs "map" .value -}}
{{- $items := list -}}
{{- range $key, $item := .value -}}
{{- if not (kindIs "invalid" $item) -}}
{{- $items = append $items (printf "%s = %s" (toRawJson $key) (include "nightporter.toml.value" (dict "root" $root "value" $item))) -}}
{{- end -}}
{{- end -}}
{ {{- join ", " $items -}} }
{{- else -}}
{{- include "nightporter.number" .value -}}
{{- end -}}
{{- end -}}

{{- define "nightporter.number" -}}
{{- if eq (float64 .) (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/* The configuration file: what is no table first, as TOML wants it. */}}
{{- define "nightporter.toml" -}}
{{- include "nightporter.toml.lines" . | trim -}}
{{- end -}}

{{- define "nightporter.toml.lines" -}}
{{- $root := .root -}}
{{- range $key, $value := fromJson (include "nightporter.config" .) }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ $key }} = {{ include "nightporter.toml.value" (dict "root" $root "value" $value) }}
{{- end }}
{{- end }}
{{- range $table, $value := fromJson (include "nightporter.config" .) }}
{{- if and (kindIs "map" $value) $value }}

[{{ $table }}]
{{- range $key, $item := $value }}
{{- if not (kindIs "invalid" $item) }}
{{ if regexMatch "^[A-Za-z0-9_-]+$" $key }}{{ $key }}{{ else }}{{ toRawJson $key }}{{ end }} = {{ include "nightporter.toml.value" (dict "root" $root "value" $item) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* One setting as a variable's text: lists are words, tables JSON. Takes root, key and value. */}}
{{- define "nightporter.environment.value" -}}
{{- $root := .root -}}
{{- if kindIs "slice" .value -}}
{{- $items := list -}}
{{- range .value -}}{{- $items = append $items (include "nightporter.text" (dict "root" $root "text" (toString .))) -}}{{- end -}}
{{- join " " $items -}}
{{- else if kindIs "map" .value -}}
{{- $items := dict -}}
{{- range $key, $item := .value -}}
{{- if not (kindIs "string" $item) }}{{ fail (printf "nightporter: config.%s cannot be a variable; write configIn: configMap" $.key) }}{{ end -}}
{{- $_ := set $items $key (include "nightporter.text" (dict "root" $root "text" $item)) -}}
{{- end -}}
{{- toRawJson $items -}}
{{- else if kindIs "string" .value -}}
{{- include "nightporter.text" (dict "root" $root "text" .value) -}}
{{- else if kindIs "bool" .value -}}
{{- .value -}}
{{- else -}}
{{- include "nightporter.number" .value -}}
{{- end -}}
{{- end -}}

{{/* The settings as a list of variables. */}}
{{- define "nightporter.environment" -}}
{{- include "nightporter.environment.lines" . | trim -}}
{{- end -}}

{{- define "nightporter.environment.lines" -}}
{{- $root := .root -}}
{{- $groups := fromJsonArray (include "nightporter.settings.groups" .) -}}
{{- range $key, $value := fromJson (include "nightporter.config" .) }}
{{- if eq $key "providers" }}
{{- range $provider, $own := $value }}
{{- range $inner, $item := $own }}
- name: NIGHTPORTER_PROVIDERS_{{ upper $provider | replace "-" "_" }}_{{ upper $inner }}
  value: {{ include "nightporter.environment.value" (dict "root" $root "key" (printf "providers.%s.%s" $provider $inner) "value" $item) | toRawJson }}
{{- end }}
{{- end }}
{{- else if has $key $groups }}
{{- range $inner, $item := $value }}
{{- if not (kindIs "invalid" $item) }}
- name: NIGHTPORTER_{{ upper $key }}_{{ upper $inner }}
  value: {{ include "nightporter.environment.value" (dict "root" $root "key" (printf "%s.%s" $key $inner) "value" $item) | toRawJson }}
{{- end }}
{{- end }}
{{- else if not (kindIs "invalid" $value) }}
- name: NIGHTPORTER_{{ upper $key }}
  value: {{ include "nightporter.environment.value" (dict "root" $root "key" $key "value" $value) | toRawJson }}
{{- end }}
{{- end }}
{{- end -}}

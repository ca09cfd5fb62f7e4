{{/*
A piece of a manifest as a CEL expression of typed objects, as mutations of a policy want it. What is a
plain map in Kubernetes is one here; a text that begins with "cel:" is an expression. Takes path (the
type's name) and value.
*/}}
{{- define "nightporter.cel" -}}
{{- $path := .path -}}
{{- if kindIs "map" .value -}}
{{- $maps := list "labels" "annotations" "limits" "requests" "matchLabels" "nodeSelector" -}}
{{- $plain := has (splitList "." $path | last) $maps -}}
{{- $fields := list -}}
{{- range $key, $item := .value -}}
{{- $name := ternary (toRawJson $key) $key $plain -}}
{{- $fields = append $fields (printf "%s: %s" $name (include "nightporter.cel" (dict "path" (printf "%s.%s" $path $key) "value" $item))) -}}
{{- end -}}
{{ if not $plain }}{{ $path }}{{ end }}{ {{- join ", " $fields -}} }
{{- else if kindIs "slice" .value -}}
{{- $items := list -}}
{{- range .value -}}{{- $items = append $items (include "nightporter.cel" (dict "path" $path "value" .)) -}}{{- end -}}
[{{ join ", " $items }}]
{{- else if kindIs "string" .value -}}
{{- if hasPrefix "cel:" .value }}{{ trimPrefix "cel:" .value }}{{ else }}{{ toRawJson .value }}{{ end -}}
{{- else if kindIs "bool" .value -}}
{{- .value -}}
{{- else -}}
{{- include "nightporter.number" .value -}}
{{- end -}}
{{- end -}}

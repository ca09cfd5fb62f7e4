{{/* What only this chart needs; the container and its volumes come from nightporter-lib. */}}

{{- define "nightporter.app.selector" -}}
app.kubernetes.io/name: nightporter
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "nightporter.app.labels" -}}
{{ include "nightporter.app.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "nightporter.app.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "nightporter.fullname" (dict "root" . "values" .Values)) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* Fewest replicas at a time. */}}
{{- define "nightporter.app.replicas" -}}
{{- if .Values.autoscaling.enabled }}{{ int .Values.autoscaling.minReplicas }}{{ else }}{{ int .Values.replicas }}{{ end -}}
{{- end -}}

{{/* Origins of config.public_url, as a JSON list. */}}
{{- define "nightporter.app.origins" -}}
{{- $urls := .Values.config.public_url | default list -}}
{{- if kindIs "string" $urls -}}
{{- $urls = regexSplit "[ ,]+" (include "nightporter.text" (dict "root" . "text" $urls)) -1 -}}
{{- end -}}
{{- $origins := list -}}
{{- range $urls -}}{{- $origins = append $origins (include "nightporter.text" (dict "root" $ "text" .)) -}}{{- end -}}
{{- toJson $origins -}}
{{- end -}}

{{/* Their hosts, as a JSON list. */}}
{{- define "nightporter.app.hosts" -}}
{{- $hosts := list -}}
{{- range fromJsonArray (include "nightporter.app.origins" .) -}}
{{- $hosts = append $hosts (regexReplaceAll ":[0-9]+$" (urlParse .).host "") -}}
{{- end -}}
{{- toJson ($hosts | uniq) -}}
{{- end -}}

{{/* Port of a URL, e.g. of the OP; "" if there is none to see. Takes root and url. */}}
{{- define "nightporter.app.port" -}}
{{- $url := include "nightporter.text" (dict "root" .root "text" .url) -}}
{{- if $url -}}
{{- $port := regexFind ":[0-9]+$" (urlParse $url).host -}}
{{- if $port }}{{ trimPrefix ":" $port }}
{{- else if hasPrefix "https" $url }}443
{{- else if hasPrefix "http" $url }}80
{{- else if contains "sentinel" $url }}26379
{{- else if hasPrefix "redis" $url }}6379
{{- end -}}
{{- end -}}
{{- end -}}

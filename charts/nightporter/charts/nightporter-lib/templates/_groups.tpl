{{/* Tables of the settings that are groups of settings. Made by `make chart`: change charts/nightporter/values.yaml or charts/generate.py. */}}
{{- define "nightporter.settings.groups" -}}["refresh","cache","op","journal","limits","timeouts","tls","upstream_tls","forward_auth"]{{- end -}}

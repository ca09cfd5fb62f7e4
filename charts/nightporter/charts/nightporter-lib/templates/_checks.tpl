{{/* What a render refuses, all at once: what would only show as a pod that does not start. */}}

{{/* Kind of the store: redis, sqlite, memory; "" = nobody can see it from here. */}}
{{- define "nightporter.storeKind" -}}
{{- $store := include "nightporter.text" (dict "root" .root "text" (.values.config.store | default "")) -}}
{{- if hasPrefix "redis" $store }}redis{{ else if $store }}{{ splitList ":" $store | first }}{{ else if or .values.secrets.store.name .values.secrets.name }}redis{{ end -}}
{{- end -}}

{{/* Whether `config`, a file setting or an extra variable gives a setting. Takes values and key. */}}
{{- define "nightporter.given" -}}
{{- $variable := printf "NIGHTPORTER_%s" (upper .key) -}}
{{- if or (index .values.config .key) (index .values.config (printf "%s_file" .key)) .values.extraEnvFrom -}}
yes
{{- else -}}
{{- range .values.extraEnv -}}{{- if has .name (list $variable (printf "%s_FILE" $variable)) }}yes{{ end -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* Which of the known secrets become files, as a JSON object: name of the file → {secret, key}. */}}
{{- define "nightporter.files" -}}
{{- $files := dict -}}
{{- $auth := .values.config.client_auth | default "auto" -}}
{{- $kind := include "nightporter.storeKind" . -}}
{{- $common := .values.secrets.name -}}
{{- $wanted := dict
    "client" (and $common (not (has $auth (list "none" "private_key_jwt"))) (not .values.config.providers))
    "clientKey" (and $common (eq $auth "private_key_jwt"))
    "cookieKeys" (and $common (not (has $kind (list "sqlite" "memory"))))
    "store" (and $common (not .values.config.store)) -}}
{{- $paths := dict "client" "client-secret" "clientNext" "client-secret-next" "clientKey" "client-key" "cookieKeys" "cookie-keys" "store" "store-url" "storePassword" "store-password" "sentinelPassword" "sentinel-password" -}}
{{- range $which, $path := $paths -}}
{{- $secret := index $.values.secrets $which -}}
{{- if or $secret.name (index $wanted $which) -}}
{{- $name := include "nightporter.secretName" (dict "root" $.root "values" $.values "which" $which) -}}
{{- $_ := set $files $path (dict "secret" $name "key" $secret.key) -}}
{{- end -}}
{{- end -}}
{{- range $provider, $secret := .values.secrets.providers -}}
{{- $name := include "nightporter.text" (dict "root" $.root "text" $secret.name) -}}
{{- $_ := set $files (printf "provider-%s" $provider) (dict "secret" $name "key" $secret.key) -}}
{{- end -}}
{{- with .values.storeTls -}}
{{- if .secret -}}
{{- $name := include "nightporter.text" (dict "root" $.root "text" .secret) -}}
{{- range $path, $key := dict "store-ca" .caKey "store-cert" .certKey "store-key" .keyKey -}}
{{- if $key -}}{{- $_ := set $files $path (dict "secret" $name "key" $key) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $files -}}
{{- end -}}

{{/* `config`, and where the secrets of its providers are, as JSON. */}}
{{- define "nightporter.config" -}}
{{- $config := deepCopy .values.config -}}
{{- range $provider, $_ := .values.secrets.providers -}}
{{- if not (hasKey ($config.providers | default dict) $provider) -}}
{{- fail (printf "nightporter: secrets.providers.%s belongs to no provider: write config.providers.%s, or remove it" $provider $provider) -}}
{{- end -}}
{{- $_ := set (index $config.providers $provider) "client_secret_file" (printf "/run/secrets/nightporter/provider-%s" $provider) -}}
{{- end -}}
{{- toJson $config -}}
{{- end -}}

{{- define "nightporter.check" -}}
{{- $files := fromJson (include "nightporter.files" .) -}}
{{- $problems := list -}}
{{- $values := .values -}}
{{- $kind := include "nightporter.storeKind" . -}}
{{- $auth := $values.config.client_auth | default "auto" -}}
{{- $several := $values.config.providers -}}
{{- if not (or $several (include "nightporter.given" (dict "values" $values "key" "issuer")) (include "nightporter.given" (dict "values" $values "key" "provider"))) -}}
{{- $problems = append $problems "config.issuer (or config.provider) is not set: write the OP's issuer URL" -}}
{{- end -}}
{{- if not (or $several (include "nightporter.given" (dict "values" $values "key" "client_id"))) -}}
{{- $problems = append $problems "config.client_id is not set: write the client id that the OP shows for this app" -}}
{{- end -}}
{{- if and (not $several) (ne $auth "none") (not (hasKey $files "client-secret")) (not (hasKey $files "client-key")) (not (include "nightporter.given" (dict "values" $values "key" "client_secret"))) (not (include "nightporter.given" (dict "values" $values "key" "client_key"))) -}}
{{- $problems = append $problems "no Secret with the client's secret: create one and name it in secrets.name or secrets.client.name (or write config.client_auth: none for a public client)" -}}
{{- end -}}
{{- range $provider, $own := $several -}}
{{- if not (or (hasKey $files (printf "provider-%s" $provider)) $own.client_secret_file $own.client_key_file $values.extraEnvFrom (eq ($own.client_auth | default $auth) "none")) -}}
{{- $problems = append $problems (printf "no Secret with the client's secret of provider %s: name it in secrets.providers.%s" $provider $provider) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $auth "private_key_jwt") (not $several) (not (hasKey $files "client-key")) (not (include "nightporter.given" (dict "values" $values "key" "client_key"))) -}}
{{- $problems = append $problems "config.client_auth is private_key_jwt, and no Secret holds the key: name it in secrets.clientKey.name" -}}
{{- end -}}
{{- if not (include "nightporter.given" (dict "values" $values "key" "public_url")) -}}
{{- $problems = append $problems "config.public_url is not set: write the address people type, e.g. https://app.example.com" -}}
{{- end -}}
{{- if $values.forwardAuth.enabled -}}
{{- if not (dig "forward_auth" "engine" "" $values.config) -}}
{{- $problems = append $problems "forwardAuth.enabled without an engine: write config.forward_auth.engine" -}}
{{- end -}}
{{- else if not (or $values.config.upstreams (include "nightporter.given" (dict "values" $values "key" "upstream"))) -}}
{{- $problems = append $problems "config.upstream is not set: write the app's address, e.g. http://127.0.0.1:9000 or http://my-app:80" -}}
{{- end -}}
{{- if not (or (hasKey $files "store-url") (include "nightporter.given" (dict "values" $values "key" "store"))) -}}
{{- $problems = append $problems "no store: write config.store, or name a Secret with its URL in secrets.store.name" -}}
{{- end -}}
{{- if and (eq $kind "redis") (not (hasKey $files "cookie-keys")) (not (include "nightporter.given" (dict "values" $values "key" "cookie_keys"))) -}}
{{- $problems = append $problems "no Secret with the cookie keys, and Redis keeps none: create one (`nightporter keygen`) and name it in secrets.name or secrets.cookieKeys.name" -}}
{{- end -}}
{{- if and .replicated (has $kind (list "sqlite" "memory")) -}}
{{- $problems = append $problems (printf "a %s: store serves one process: write replicas: 1 and autoscaling.enabled: false, or use Redis" $kind) -}}
{{- end -}}
{{- if and .values.ca.configMap .values.ca.secret -}}
{{- $problems = append $problems "ca.configMap and ca.secret are both set: keep one of them" -}}
{{- end -}}
{{- $grace := .graceSeconds -}}
{{- if $grace -}}
{{- $needed := add .values.drain.sleepSeconds (((.values.config.timeouts | default dict).drain_s | default 30) | ceil) 5 -}}
{{- if lt (int $grace) (int $needed) -}}
{{- $problems = append $problems (printf "terminationGracePeriodSeconds is %d, too short: drain.sleepSeconds + config.timeouts.drain_s + 5 make %d" (int $grace) (int $needed)) -}}
{{- end -}}
{{- end -}}
{{- if $problems -}}
{{- fail (printf "nightporter: %d problem(s) in the values:\n  - %s" (len $problems) (join "\n  - " $problems)) -}}
{{- end -}}
{{- end -}}

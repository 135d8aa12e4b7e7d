{{- define "swarm.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "swarm.image" -}}
{{- $registry := required "set image.registry: no public registry has swarm's images" .root.Values.image.registry -}}
{{- printf "%s/%s:%s" (trimSuffix "/" $registry) .repository (default .root.Chart.AppVersion .root.Values.image.tag) -}}
{{- end -}}

{{- define "swarm.account" -}}
{{- default (printf "%s-%s" (include "swarm.fullname" .root) .role) (index .root.Values.serviceAccounts .role).name -}}
{{- end -}}

{{- define "swarm.workerName" -}}
{{- default (printf "%s-worker-%s" (include "swarm.fullname" .root) .type) .spec.name -}}
{{- end -}}

{{- define "swarm.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
{{- end -}}

{{- /* A value as TOML. Numbers of YAML arrive as floating point. */ -}}
{{- define "swarm.tomlValue" -}}
{{- if kindIs "string" . -}}
{{- toRawJson . -}}
{{- else if kindIs "float64" . -}}
{{- if eq (floor .) . -}}{{- printf "%.0f" . -}}{{- else -}}{{- . -}}{{- end -}}
{{- else if kindIs "slice" . -}}
[{{- range $index, $item := . -}}{{- if $index }}, {{ end -}}{{- include "swarm.tomlValue" $item -}}{{- end -}}]
{{- else if kindIs "map" . -}}
{{- $items := list -}}
{{- range $key, $item := . -}}{{- $items = append $items (printf "%s = %s" (toRawJson $key) (include "swarm.tomlValue" $item)) -}}{{- end -}}
{ {{- join ", " $items -}} }
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{- /* A table as TOML: values first, then tables in it. Takes `path`, a list of keys, and `table`. */ -}}
{{- define "swarm.tomlTable" -}}
{{- $path := .path -}}
{{- range $key, $value := .table }}
{{- if not (kindIs "map" $value) }}
{{ toRawJson $key }} = {{ include "swarm.tomlValue" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}
{{- $here := append $path (toRawJson $key) }}

[{{ join "." $here }}]
{{- include "swarm.tomlTable" (dict "path" $here "table" $value) }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Kind of a worker type's object, as in swarm.toml. */ -}}
{{- define "swarm.workerKind" -}}
{{- default "deployment" .kind -}}
{{- end -}}

{{- /* The pods of a worker type. Takes `root`, `type`, its `spec` and its `kind`. */ -}}
{{- define "swarm.workerPod" -}}
{{- $root := .root -}}
{{- $type := .type -}}
{{- $spec := .spec -}}
{{- $drain := dig "scaling" "drain_timeout_seconds" 300 (default dict $spec.settings) -}}
{{- if eq .kind "job" }}
restartPolicy: Never
{{- end }}
# Otherwise a Service named `metrics` would set METRICS_PORT.
enableServiceLinks: false
serviceAccountName: {{ include "swarm.account" (dict "root" $root "role" "worker") }}
automountServiceAccountToken: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
# Slightly longer than drain_timeout_seconds.
terminationGracePeriodSeconds: {{ default (add $drain 30) $spec.terminationGracePeriodSeconds | int }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  seccompProfile:
    type: RuntimeDefault
{{- with $spec.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $spec.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $spec.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: worker
    image: {{ include "swarm.image" (dict "root" $root "repository" (default "swarm" $spec.repository)) }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args:
      {{- concat (list "worker" "--type" $type "--config" "/etc/swarm/swarm.toml" "--metrics-listen" "0.0.0.0:9100") (default list $spec.args) | toYaml | nindent 6 }}
    env:
      {{- if eq .kind "job" }}
      # The autoscaler adds SWARM_WORKER_ID.
      {{- else }}
      # A worker's id is the name of its pod, which tells the autoscaler which pod is idle.
      - name: SWARM_WORKER_ID
        valueFrom:
          fieldRef:
            fieldPath: metadata.name
      {{- end }}
      - name: REDIS_URL
        valueFrom:
          secretKeyRef:
            name: {{ $root.Values.workers.existingSecret }}
            key: {{ $root.Values.workers.secretKey }}
      {{- with $spec.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    ports:
      - name: metrics
        containerPort: 9100
    livenessProbe:
      httpGet:
        path: /healthz
        port: metrics
      timeoutSeconds: 5
      failureThreshold: 6
    resources:
      {{- toYaml (default dict $spec.resources) | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop: ["ALL"]
    volumeMounts:
      - name: config
        mountPath: /etc/swarm
        readOnly: true
      - name: tmp
        mountPath: /tmp
      {{- if $spec.sharedMemory }}
      - name: shm
        mountPath: /dev/shm
      {{- end }}
      {{- with $spec.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  {{- with $spec.extraContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumes:
  - name: config
    configMap:
      name: {{ include "swarm.fullname" $root }}-config
  - name: tmp
    emptyDir:
      sizeLimit: {{ default "2Gi" $spec.temporary }}
  {{- with $spec.sharedMemory }}
  - name: shm
    emptyDir:
      medium: Memory
      sizeLimit: {{ . }}
  {{- end }}
  {{- with $spec.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

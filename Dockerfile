# One image for every subcommand, and one with Chromium for browser workers:
#
#   docker build --target swarm   --tag localhost/swarm:0.1.0 .
#   docker build --target browser --tag localhost/swarm-browser:0.1.0 .
#
# Nobody can push to `localhost/`, so an image that is missing is never somebody else's.
#
# Builds with BuildKit and with the classic builder. The classic builder runs every stage above its target, so the
# stages are in the order in which they are needed, and none needs BuildKit's mounts.
#
# To package a binary that was built elsewhere, put it into the context as `prebuilt/swarm` and replace the compiler's
# image:
#
#   docker build --build-arg BUILDER=debian:12.15-slim --target swarm CONTEXT

# Both are Debian 12, so that the binary finds the C library it was linked with.
ARG BUILDER=rust:1.95.0-slim-bookworm
ARG RUNTIME=debian:12.15-slim

FROM ${BUILDER} AS builder
WORKDIR /src
COPY . .
RUN if [ -f prebuilt/swarm ]; then \
        install -D prebuilt/swarm /out/swarm; \
    else \
        cargo build --release --locked --bin swarm \
        && install -D --strip target/release/swarm /out/swarm; \
    fi

FROM ${RUNTIME} AS swarm
LABEL org.opencontainers.image.title="swarm" \
      org.opencontainers.image.description="Event-driven autoscaler for job workers on Redis streams" \
      org.opencontainers.image.licenses="Apache-2.0"
# No package is installed: swarm needs only the C library, and the trusted root certificates for `rediss://`.
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=builder /out/swarm /usr/local/bin/swarm
# A number, so that Kubernetes can verify that it is not root.
USER 10001:10001
# swarm looks for its configuration in the working directory first.
WORKDIR /etc/swarm
EXPOSE 9000
ENTRYPOINT ["swarm"]
CMD ["autoscaler"]

FROM swarm AS browser
USER root
# tini reaps the processes that Chromium leaves behind. The fonts cover most languages.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends chromium fonts-liberation fonts-noto-core tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin swarm \
    # Engines allow no user namespaces inside a container, and Chromium's sandbox needs them. The container is the
    # sandbox.
    && echo 'export CHROMIUM_FLAGS="$CHROMIUM_FLAGS --no-sandbox"' >/etc/chromium.d/container
USER 10001:10001
ENTRYPOINT ["tini", "--", "swarm"]
CMD ["worker", "--type", "browser"]

# Nightporter's image: no shell, no package manager, nobody's user id, nothing to write to.
#
#   make image     builds it as nightporter:<version>; docs/image.md says how to run it
#
# Both bases are arguments; the interpreter's path (/usr/bin/python3.13) must be the same in both.
# Pin them where builds must repeat: --build-arg BUILD_IMAGE=debian:13-slim@sha256:…
ARG BUILD_IMAGE=debian:13-slim
ARG RUNTIME_IMAGE=gcr.io/distroless/python3-debian13:nonroot

FROM ${BUILD_IMAGE} AS build
SHELL ["/bin/sh", "-euc"]
# Debian keeps one version of a package, so a pin here would only fail one day (hadolint DL3008).
# hadolint ignore=DL3008
RUN if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then \
        apt-get update; \
        apt-get install --yes --no-install-recommends python3-venv; \
        rm -rf /var/lib/apt/lists/*; \
    fi; \
    python3 -m venv /opt/pip; \
    python3 -m venv --without-pip /opt/venv
WORKDIR /src
COPY requirements/build.txt requirements/runtime.txt requirements/
# Wheels only and by hash: what is installed is what was locked, and no package runs code here.
# Behind a proxy that ends TLS itself: --secret id=ca,src=/path/to/ca-certificates.crt
# hadolint ignore=DL3042
RUN --mount=type=secret,id=ca,required=false --mount=type=cache,target=/var/cache/pip \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    export PIP_CACHE_DIR=/var/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1 PIP_REQUIRE_HASHES=1 PIP_ONLY_BINARY=:all:; \
    /opt/pip/bin/pip install -r requirements/build.txt; \
    /opt/pip/bin/pip --python /opt/venv/bin/python install --no-compile -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY proxy proxy
# Stubs and C sources are for people who develop. Bytecode is never compared with its source:
# nothing changes in here, and the start is shorter.
RUN /opt/pip/bin/pip wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir /tmp/wheel .; \
    /opt/pip/bin/pip --python /opt/venv/bin/python install --quiet --no-compile --no-deps --no-index /tmp/wheel/*.whl; \
    find /opt/venv -type f '(' -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.[ch]' ')' -delete; \
    rm -rf /opt/venv/include /opt/venv/bin/[Aa]ctivate* /opt/venv/bin/cffi-gen-src /opt/venv/bin/httpx2 \
        /opt/venv/bin/idna /opt/venv/bin/uvicorn; \
    /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

# hadolint ignore=DL3006
FROM ${RUNTIME_IMAGE}
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="nightporter" \
      org.opencontainers.image.description="A reverse-proxy authentication sidecar that keeps people signed in" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:/usr/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    MALLOC_ARENA_MAX=2
WORKDIR /
USER 65532:65532
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/venv/bin/nightporter"]
CMD ["serve"]

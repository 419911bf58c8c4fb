# Debian's own Python will do as well: `make container` builds this from a base without any registry.
ARG BASE=python:3.13-slim
ARG BUILD_BASE=$BASE

FROM $BUILD_BASE AS build
WORKDIR /src
# Only files whose hashes are in the locks get in; `make lock` renews them.
COPY requirements.lock requirements-build.lock ./
# pip stays behind: PIP_PYTHON names where it installs to.
RUN python3 -m venv /build && python3 -m venv --without-pip /app \
 && /build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock \
 && PIP_PYTHON=/app/bin/python3 /build/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
 && PIP_PYTHON=/app/bin/python3 /build/bin/pip install --no-cache-dir --no-deps --no-index /dist/*.whl

FROM $BASE
COPY --from=build /app /app
# What is in it: CycloneDX, made by `make sbom` from the same lock.
COPY sbom.cdx.json /app/share/sbom.cdx.json
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin gateway \
 && install -d -o gateway -g gateway -m 0700 /data
USER gateway
# Nothing is written but to /data: the root may be read-only.
ENV PATH=/app/bin:$PATH \
    SEMS_GATEWAY_GATEWAY__DATA_DIR=/data
VOLUME /data
EXPOSE 5020
STOPSIGNAL SIGTERM
# Healthy is who answers from its loop; whether broker and cloud do is no reason to start it again.
HEALTHCHECK --interval=60s --timeout=20s --start-period=120s \
  CMD sems-gateway devices --data-dir "$SEMS_GATEWAY_GATEWAY__DATA_DIR" >/dev/null
ENTRYPOINT ["sems-gateway"]
CMD ["run", "/config.yaml"]

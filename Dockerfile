FROM python:3.13-slim AS build
WORKDIR /src
# Only files whose hashes are in the locks get in; `make lock` renews them.
COPY requirements.lock requirements-build.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements-build.lock \
 && python -m venv /app && /app/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
 && /app/bin/pip install --no-cache-dir --no-deps --no-index /dist/*.whl

FROM python:3.13-slim
COPY --from=build /app /app
# What is in it: CycloneDX, made by `make sbom` from the same lock.
COPY sbom.cdx.json /app/share/sbom.cdx.json
RUN useradd --system --uid 10001 gateway && install -d -o gateway /data
USER gateway
ENV PATH=/app/bin:$PATH \
    SEMS_GATEWAY_GATEWAY__DATA_DIR=/data
VOLUME /data
EXPOSE 5020
STOPSIGNAL SIGTERM
ENTRYPOINT ["sems-gateway"]
CMD ["run", "/config.yaml"]

FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
RUN python -m venv /app && /app/bin/pip install --no-cache-dir '.[demo]'

FROM python:3.13-slim
COPY --from=build /app /app
RUN useradd --system --uid 10001 gateway && install -d -o gateway /data
USER gateway
ENV PATH=/app/bin:$PATH \
    SEMS_GATEWAY_GATEWAY__DATA_DIR=/data
VOLUME /data
EXPOSE 5020
STOPSIGNAL SIGTERM
ENTRYPOINT ["sems-gateway"]
CMD ["run", "/config.yaml"]

FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements/runtime.lock requirements/
RUN python -m venv /opt/gateway \
    && /opt/gateway/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements/runtime.lock
COPY requirements/build.lock requirements/
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY config/workloads config/workloads
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/gateway/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM python:3.11-slim
RUN useradd --system --uid 10001 gateway
COPY --from=build /opt/gateway /opt/gateway
USER 10001
EXPOSE 8080 8081
ENTRYPOINT ["/opt/gateway/bin/llm-gateway"]

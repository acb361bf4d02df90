# Two stages: the first builds, the second has only what serves. Runs as a user without rights and
# writes nothing: docker run --read-only --user 10001 --cap-drop ALL ...
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
# The compiler of the scheduler and the wire formats (pyproject.toml, hooks.mypyc); it stays here.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY requirements/runtime.lock requirements/compile.lock requirements/
RUN python3 -m venv /opt/gateway \
    && /opt/gateway/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements/runtime.lock \
    && python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements/compile.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY config/workloads config/workloads
RUN PATH=/opt/build/bin:$PATH HATCH_BUILD_HOOK_ENABLE_MYPYC=1 \
    /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/gateway/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl \
    && /opt/gateway/bin/pip uninstall --yes --quiet setuptools pip

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin gateway
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["llm-gateway", "health"]
ENTRYPOINT ["llm-gateway"]

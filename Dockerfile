# syntax=docker/dockerfile:1
# The base is pinned by its full tag. A digest pins harder, but it is only known to who has pulled the image: give one
# with  docker build --build-arg BASE=python:3.11.14-slim-bookworm@sha256:...
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv /opt/ring-router
COPY requirements.txt requirements-dev.txt ./
# Wheels with known hashes only: nothing unknown gets in.
RUN /opt/ring-router/bin/pip install --require-hashes --only-binary :all: -r requirements.txt
# What builds our wheel (setuptools, mypyc, a C compiler) stays in this stage.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --only-binary :all: -r requirements-dev.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY router ./router
RUN RING_ROUTER_COMPILE=1 /opt/build/bin/pip wheel --no-deps --no-build-isolation --no-index -w dist . \
    && /opt/ring-router/bin/pip install --no-deps --no-index dist/*.whl \
    && /opt/ring-router/bin/python -m compileall -q /opt/ring-router/lib \
    && /opt/ring-router/bin/pip uninstall --yes --quiet pip

FROM ${BASE}
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin router \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/ring-router \
    && install -d -m 0755 /etc/ring-router
COPY --from=builder /opt/ring-router /opt/ring-router
# Runs with a read-only root: the router writes to state_dir (a volume) and to TMPDIR (docker run --tmpfs /tmp), nowhere
# else.
ENV PATH=/opt/ring-router/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TMPDIR=/tmp \
    RING_ROUTER_CONFIG=/etc/ring-router/router.yaml
VOLUME ["/var/lib/ring-router"]
USER 10001:10001
EXPOSE 8080
# Ready, not merely alive. With another `admin.listen` set RING_ROUTER_ADMIN=http://127.0.0.1:<port>.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["ring-router", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["ring-router"]
CMD ["run", "-c", "/etc/ring-router/router.yaml"]

# docker build .                        the image that runs in production
# docker build --target development .   with tests and tools; what docker-compose.yaml uses

FROM python:3.13-slim AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HOST=0.0.0.0 \
    VAR_DIR=/var/lib/kit
WORKDIR /srv

# Compiled at build time: the user of the last stage cannot write into /opt.
FROM base AS packages
RUN python -m venv /opt/venv
COPY requirements.txt ./
RUN pip install --compile --require-hashes -r requirements.txt

FROM packages AS development-packages
COPY requirements-dev.txt ./
RUN pip install --compile --require-hashes -r requirements-dev.txt

FROM base AS service
ARG UID=1000
ARG GID=1000
RUN groupadd --non-unique --gid "$GID" kit \
    && useradd --non-unique --uid "$UID" --gid "$GID" --no-create-home --home-dir /var/lib/kit kit \
    && install -d -m 700 -o kit -g kit /var/lib/kit
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('PORT') or 8000}/health/live\", timeout=4)"]
CMD ["kit", "run"]

FROM service AS development
# For tests: the README's calls are made with curl, generators are tried in a clone.
RUN apt-get update && apt-get install --yes --no-install-recommends curl git && rm -rf /var/lib/apt/lists/*
COPY --from=development-packages /opt/venv /opt/venv
COPY . .
RUN pip install --no-deps --no-build-isolation -e . && chown -R kit:kit /srv
USER kit

# Without tools/ and tests/: what only developers run.
FROM service AS production
ENV ENVIRONMENT=production
COPY --from=packages /opt/venv /opt/venv
COPY pyproject.toml README.md alembic.ini ./
COPY migrations migrations
COPY app app
RUN pip install --no-deps --no-build-isolation -e .
USER kit

# beatd and beatd worker, as a user of few rights on a read-only file system:
#   docker build -t beatd:0.1.0 .
#   docker run --read-only --tmpfs /tmp -v ./etc:/etc/beatd:ro beatd:0.1.0
#   docker run --read-only --tmpfs /tmp -v ./etc:/etc/beatd:ro beatd:0.1.0 beatd worker
# /tmp is for what Python and tasks write there.
# A secret is named: -e BEATD_BROKER_URL_FILE=/run/secrets/broker_url
FROM python:3.13-slim-bookworm AS wheels
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY beatd beatd
COPY systemd systemd
RUN pip wheel --no-cache-dir --wheel-dir /wheels ".[metrics]"

FROM python:3.13-slim-bookworm
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    python -m venv /opt/beatd \
    && /opt/beatd/bin/pip install --no-cache-dir --no-index --find-links /wheels "beatd[metrics]" \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/beatd
ENV PATH=/opt/beatd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    BEATD_CONFIG=/etc/beatd/config.py \
    BEATD_SCHEDULE_FILENAME=/var/lib/beatd/schedule.db
WORKDIR /var/lib/beatd
# Each container has its own: the schedule file is made anew from the broker's ledger.
VOLUME /var/lib/beatd
USER 10001:10001
# A scheduler that hangs, or that cannot emit, is unhealthy; a standby is not. A worker
# has no scheduler to ask: --no-healthcheck, or its own --http (docs/deploy/container.md).
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
    CMD ["beatd", "status", "--exit-code", "--quiet"]
CMD ["beatd"]

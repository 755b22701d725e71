# The image of the operator or of the proxy, by --build-arg PART=operator or PART=proxy; `make image` builds both.
#
# PART names the requirements (all locked by hashes): kopf and kubernetes are in the operator's only.  BASE_IMAGE is anything with
# Python 3.11 and pip.  PIP_ARGS="--no-index --find-links=." takes the wheels from the folder build/wheels instead of an index.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS files
ARG PART
ARG PIP_ARGS=""
WORKDIR /build
COPY requirements/${PART}.txt build/wheels* ./
RUN python3 -m pip install --quiet --no-cache-dir --no-compile --disable-pip-version-check --root-user-action=ignore \
    --no-deps --require-hashes ${PIP_ARGS} --requirement ${PART}.txt --target /opt/pgshepherd/lib
COPY proxy/shardproxy /opt/pgshepherd/lib/shardproxy
COPY operator/shardoperator /opt/pgshepherd/lib/shardoperator
# Bytecode is made here, since the root is read-only where this runs.
RUN python3 -m compileall -q /opt/pgshepherd/lib && mkdir /opt/pgshepherd/bin \
 && printf '#!/usr/bin/env python3\nfrom shardoperator.cli.main import main\nmain()\n' > /opt/pgshepherd/bin/pgshepherd \
 && chmod 0755 /opt/pgshepherd/bin/pgshepherd

FROM ${BASE_IMAGE}
ENV PATH=/opt/pgshepherd/bin:/usr/local/bin:/usr/bin:/bin PYTHONPATH=/opt/pgshepherd/lib PYTHONUNBUFFERED=1
COPY --from=files /opt/pgshepherd /opt/pgshepherd
USER 65532:65532
CMD ["pgshepherd", "--help"]

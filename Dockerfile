# Two images from one file: --target proxy and --target operator.  Python 3.11, non-root, nothing but the hash-locked requirements.
#
#   docker build --target proxy -t pgshepherd/proxy:dev .
#
# Where no registry can be reached, give a base that has Python 3.11 and pip, and a folder of wheels in the context:
#   --build-arg BASE_IMAGE=my/python:3.11 --build-arg PIP_ARGS="--no-index --find-links=build/wheels"
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS sources
WORKDIR /src
COPY . .
RUN mkdir -p /opt/pgshepherd/bin /opt/pgshepherd/lib \
 && cp -r operator/shardoperator proxy/shardproxy /opt/pgshepherd/lib/ \
 && printf '#!/usr/bin/env python3\nfrom shardoperator.cli.main import main\nmain()\n' > /opt/pgshepherd/bin/pgshepherd \
 && chmod 0755 /opt/pgshepherd/bin/pgshepherd

FROM sources AS proxy-files
ARG PIP_ARGS=""
RUN python3 -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --require-hashes --no-deps \
    ${PIP_ARGS} -r requirements/proxy.txt --target /opt/pgshepherd/lib && python3 -m compileall -q /opt/pgshepherd/lib

FROM sources AS operator-files
ARG PIP_ARGS=""
RUN python3 -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --require-hashes --no-deps \
    ${PIP_ARGS} -r requirements/operator.txt --target /opt/pgshepherd/lib && python3 -m compileall -q /opt/pgshepherd/lib

FROM ${BASE_IMAGE} AS proxy
ENV PATH=/opt/pgshepherd/bin:/usr/local/bin:/usr/bin:/bin PYTHONPATH=/opt/pgshepherd/lib PYTHONUNBUFFERED=1
COPY --from=proxy-files /opt/pgshepherd /opt/pgshepherd
USER 65532:65532
EXPOSE 6432 9090 8080
CMD ["pgshepherd", "proxy", "--config", "/etc/pgshepherd/pgdog.toml", "--users", "/etc/pgshepherd/users.toml"]

FROM ${BASE_IMAGE} AS operator
ENV PATH=/opt/pgshepherd/bin:/usr/local/bin:/usr/bin:/bin PYTHONPATH=/opt/pgshepherd/lib PYTHONUNBUFFERED=1
COPY --from=operator-files /opt/pgshepherd /opt/pgshepherd
USER 65532:65532
EXPOSE 8080
CMD ["pgshepherd", "operator"]

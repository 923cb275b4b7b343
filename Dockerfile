# The Dagster UI with its daemon, and `tgn`, in one container: docs/deployment.md. `tgn serve` takes one more: docs/serving.md. docker/check.py tries these steps without Docker.
FROM python:3.11-slim

# LightGBM's wheel needs the OpenMP library of the system.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 tgn && install -d -o tgn -g tgn /data

WORKDIR /app
COPY constraints.txt ./
# Options of pip that choose a build of torch, for example the one for CPUs: --build-arg TORCH_OPTIONS="--index-url ..."
ARG TORCH_OPTIONS=""
RUN pip install --no-cache-dir $TORCH_OPTIONS -c constraints.txt torch
COPY pyproject.toml README.md ./
COPY tgn_assets ./tgn_assets
RUN pip install --no-cache-dir -c constraints.txt '.[postgres,s3]'

USER tgn
WORKDIR /data
ENV TGN_HOME=/data
VOLUME /data
EXPOSE 3000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:3000/server_info', timeout=5)"]
CMD ["tgn", "dev", "--host", "0.0.0.0"]

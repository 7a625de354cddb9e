# syntax=docker/dockerfile:1
# For TPU VMs and GKE; libtpu comes with the extra [tpu]. From the repository's directory:
#
#   docker build -f launch/docker/tpu.Dockerfile -t REGION-docker.pkg.dev/PROJECT/REPO/jaxt2i-tpu:TAG .
#   docker run --privileged --network=host --user=0 -v /mnt/shared:/mnt/shared IMAGE \
#     --config configs/stylegan_t.py:lite64 --workdir /mnt/shared/lite64
FROM python:3.12.11-slim-bookworm

RUN useradd --create-home --uid 1000 jaxt2i \
    && install -d -o jaxt2i -g jaxt2i /home/jaxt2i/code /home/jaxt2i/code/runs /mnt/shared
WORKDIR /home/jaxt2i/code
ENV PYTHONUNBUFFERED=1

# The dependencies first, from pyproject.toml alone: a change of code does not install them again.
COPY pyproject.toml README.md LICENSE ./
RUN --mount=type=cache,target=/root/.cache/pip pip install '.[tpu]' && pip uninstall -y jaxt2i

COPY jaxt2i jaxt2i
COPY configs configs
COPY launch launch
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps -e .

USER jaxt2i
ENTRYPOINT ["launch/preemptible.sh", "python", "-m", "jaxt2i.train"]

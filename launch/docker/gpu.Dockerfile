# syntax=docker/dockerfile:1
# For NVIDIA GPUs; CUDA's libraries come with the extra [cuda], so the host needs its driver and the
# NVIDIA container toolkit alone. From the repository's directory:
#
#   docker build -f launch/docker/gpu.Dockerfile -t jaxt2i-gpu:TAG .
#   docker run --gpus all --shm-size=8g -v "$PWD/runs:/home/jaxt2i/code/runs" jaxt2i-gpu:TAG \
#     --config configs/stylegan_t.py
FROM python:3.12.11-slim-bookworm

RUN useradd --create-home --uid 1000 jaxt2i \
    && install -d -o jaxt2i -g jaxt2i /home/jaxt2i/code /home/jaxt2i/code/runs /mnt/shared
WORKDIR /home/jaxt2i/code
ENV PYTHONUNBUFFERED=1

# The dependencies first, from pyproject.toml alone: a change of code does not install them again.
COPY pyproject.toml README.md LICENSE ./
RUN --mount=type=cache,target=/root/.cache/pip pip install '.[cuda]' && pip uninstall -y jaxt2i

COPY jaxt2i jaxt2i
COPY configs configs
COPY launch launch
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps -e .

USER jaxt2i
ENTRYPOINT ["launch/preemptible.sh", "python", "-m", "jaxt2i.train"]

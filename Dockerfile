# The base installation on a CPU: docker build -t foundry3d . && docker run -v "$PWD:/data" foundry3d embed scan.ply ...
# EXTRAS=all adds training and pictures; TORCH_INDEX names an index with CPU builds of torch, which are
# gigabytes smaller than the default ones.
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY foundry3d foundry3d
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
ARG EXTRAS=""
ARG TORCH_INDEX=""
COPY --from=wheel /wheels /wheels
RUN PIP_EXTRA_INDEX_URL="$TORCH_INDEX" pip install --no-cache-dir --disable-pip-version-check \
        "$(ls /wheels/*.whl)${EXTRAS:+[$EXTRAS]}" \
    && rm -rf /wheels \
    && useradd --uid 10001 --create-home foundry3d
USER foundry3d
WORKDIR /data
ENV NUMBA_CACHE_DIR=/tmp/numba PYTHONUNBUFFERED=1
ENTRYPOINT ["foundry3d"]
CMD ["--help"]

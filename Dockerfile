# runner in a container, set up as on a machine of one's own. docs/troubleshooting.md says how to run it.
#   docker build -t runner .
#   docker run --rm --cap-add SYS_NICE -v "$PWD/mlruns:/runner/mlruns" runner -m allocator=ptmalloc,jemalloc ipex=off,on
FROM debian:bookworm

# python3-dev has the headers that torch.compile's kernels include; git tells a sweep the commit of its code.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

ENV PIP_NO_CACHE_DIR=1
WORKDIR /runner
# What the set-up reads, so that a change elsewhere installs nothing again.
COPY Makefile pyproject.toml setup.py MANIFEST.in README.md LICENSE requirements.lock requirements-toplev.lock ./
COPY runner runner
COPY conf conf
COPY experiments experiments
RUN make setup

COPY . .
ENTRYPOINT ["/runner/.venv/bin/python", "-m", "runner"]
CMD ["--help"]

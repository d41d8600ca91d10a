#!/bin/sh
# What the image starts: `asof` with the arguments of the container, `run` where there are none.
set -eu

# The image is read-only, and Numba wants to be able to write where it reads compiled kernels: they move to where it can.
if [ ! -d "$NUMBA_CACHE_DIR" ] && ! cp -R /opt/asof/kernels "$NUMBA_CACHE_DIR"; then
    echo "entrypoint: $NUMBA_CACHE_DIR cannot be written; give the container a /tmp of its own (docker run --tmpfs /tmp)" >&2
    exit 1
fi

# Of several that start at once one migrates, and the others wait for it.
if [ "${1:-}" = run ]; then
    asof migrate
fi

exec asof "$@"

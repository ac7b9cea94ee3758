#!/bin/bash
# Remove from an environment what only those need who build extensions or test the libraries.
set -euo pipefail
packages=$(echo "${1:?the environment}"/lib/python3.*/site-packages)
cd "$packages"
before=$(du -sm . | cut -f1)
rm -rf torch/include torch/share torch/test pyarrow/include pyarrow/src pyarrow/tests
find torch/bin -type f ! -name torch_shm_manager -delete
find . -path ./transformers -prune -o -type d -name tests -prune -exec rm -rf {} +
find . -name '*.pyi' -delete
echo "pruned $((before - $(du -sm . | cut -f1))) of $before MB"

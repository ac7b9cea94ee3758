#!/bin/bash
# Remove from a server's environment what only those need who build extensions, test the libraries or train.
set -euo pipefail
environment=${1:?the environment}
# torch needs sympy and networkx to compile models, tokenizers huggingface_hub to download them; a server does
# neither. The tools that install come last.
unused=(sympy mpmath networkx huggingface_hub hf-xet setuptools pip)
packages=$(echo "$environment"/lib/python3.*/site-packages)
before=$(du -sm "$packages" | cut -f1)
"$environment/bin/python" -m pip uninstall --quiet --yes "${unused[@]}"
cd "$packages"
rm -rf torch/include torch/share torch/test
find torch/bin -type f ! -name torch_shm_manager -delete
find . -type d -name tests -prune -exec rm -rf {} +
find . -name '*.pyi' -delete
echo "pruned $((before - $(du -sm . | cut -f1))) of $before MB"

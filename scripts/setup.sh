#!/usr/bin/env bash
# Installs what building needs: Debian packages (as root, or with sudo) and wheels into .venv; with "test" also what the Python module and
# its tests need, with "bench" what the benchmarks and their peers need. Does nothing that is done already.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(g++ cmake ninja-build ccache python3 python3-venv libcli11-dev libtomlplusplus-dev nlohmann-json3-dev libfmt-dev libpng-dev
          libjpeg62-turbo-dev libwebp-dev libarchive-dev libssl-dev zlib1g-dev libicu-dev libboost1.81-dev libgtest-dev dataset-fashion-mnist)
[ "${1:-}" = test ] && packages+=(python3-dev)
[ "${1:-}" = test ] && [ -z "$(command -v chromium)" ] && packages+=(chromium-headless-shell)  # the served page is tried in it; 139 MB with its libraries
[ "${1:-}" = bench ] && packages+=(libbenchmark-dev)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

[ -x .venv/bin/python ] || python3 -m venv .venv
# TORCH_INDEX picks another build of LibTorch, e.g. https://download.pytorch.org/whl/cpu for the small CPU one.
if ! .venv/bin/python -c 'import importlib.metadata as m; assert m.version("torch").startswith("2.13.0")' 2>/dev/null; then
    .venv/bin/python -m pip install -q ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0
fi
if ! .venv/bin/python -c 'import importlib.metadata as m; assert m.version("openvino") == "2026.4.1"' 2>/dev/null; then
    .venv/bin/python -m pip install -q openvino==2026.4.1
fi
if [ "${1:-}" = test ] && ! .venv/bin/python -c 'import nanobind, numpy, pytest' 2>/dev/null; then
    .venv/bin/python -m pip install -q 'nanobind>=3.1,<4' numpy pytest
fi
if [ "${1:-}" = bench ]; then
    .venv/bin/python -m pip install -q -r benchmarks/requirements.txt
fi

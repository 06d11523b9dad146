#!/usr/bin/env bash
# Installs the build dependencies: Debian packages (as root, or with sudo) and wheels into .venv. An
# argument installs more: "data" Fashion-MNIST; "test" that and what the tests and the Python module
# need; "form" clang-format and clang-tidy, which are a part of "test"; "bench" what the benchmarks
# and their peers need; "fuzz" Clang and libFuzzer. Skips what is installed already.
#
#   CUDA=1        all of NVIDIA's libraries that LibTorch uses on a GPU
#   TORCH_INDEX   another package index for LibTorch, e.g. https://download.pytorch.org/whl/cpu for the CPU-only build
#   PACKAGES=no   does not install Debian packages
set -euo pipefail
cd "$(dirname "$0")/.."
more=${1:-}

packages=(g++ cmake ninja-build ccache python3 python3-venv libcli11-dev libtomlplusplus-dev nlohmann-json3-dev libfmt-dev libpng-dev
          libjpeg62-turbo-dev libwebp-dev libarchive-dev libssl-dev zlib1g-dev libicu-dev libhwy-dev libboost1.81-dev)
case $more in
    test)
        packages+=(libgtest-dev python3-dev dataset-fashion-mnist fonts-noto-color-emoji unicode-data)
        [ -n "$(command -v chromium)" ] || packages+=(chromium-headless-shell)  # for the tests of the served page; 139 MB with its libraries
        ;;
    data) packages+=(dataset-fashion-mnist) ;;
    bench) packages+=(libbenchmark-dev dataset-fashion-mnist) ;;
    fuzz) packages+=(clang-19 libclang-rt-19-dev libomp-19-dev libgtest-dev) ;;
esac

say() { echo "scripts/setup.sh: $*" >&2; }

# Waits for another running package manager (e.g. unattended upgrades after boot). apt-get itself
# waits only for dpkg's lock.
apt_get() {
    local waited=0 words
    words=$(mktemp)
    while ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 "$@" 2> "$words"; do
        if grep -qE 'Could not get lock|Unable to lock|Unable to acquire the dpkg frontend lock' "$words" && [ "$waited" -lt "${APT_PATIENCE:-1800}" ]; then
            [ "$waited" = 0 ] && say "another package manager is at work; waiting for it ($(grep -m1 -oE '/var/[^ ]*lock[^ ]*' "$words" || echo "its lock"))"
            sleep "${APT_PAUSE:-5}"
            waited=$((waited + 5))
            continue
        fi
        cat "$words" >&2
        grep -q 'Unable to locate package' "$words" && say "the package names are Debian 12's; install this system's equivalents, then run the same command with PACKAGES=no"
        rm -f "$words"
        say "apt-get $1 failed; its output is above. Fix the cause, then run the same command again"
        exit 1
    done
    rm -f "$words"
}

missing=()
if [ "${PACKAGES:-}" != no ]; then
    if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
        say "this is not Debian. Install the equivalents of these Debian 12 packages, then run the same command with PACKAGES=no:"
        echo "    ${packages[*]}" >&2
        exit 1
    fi
    for package in "${packages[@]}"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing+=("$package")
    done
fi
if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    if [ "$(id -u)" != 0 ]; then
        as_root=(sudo)
        # Without a terminal sudo cannot ask for a password.
        if ! command -v sudo > /dev/null || { [ ! -t 0 ] && ! sudo -n true 2> /dev/null; }; then
            say "Debian packages are missing, and only root may install them. Ask an administrator for:"
            echo "    apt-get install --no-install-recommends ${missing[*]}" >&2
            exit 1
        fi
    fi
    say "installing ${#missing[@]} Debian packages: ${missing[*]}"
    apt_get update
    apt_get install -y --no-install-recommends "${missing[@]}"
fi

[ -x .venv/bin/python ] && .venv/bin/python -m pip --version > /dev/null 2>&1 || python3 -m venv --clear .venv
cuda=()
if [ -n "${CUDA:-}" ] && [ "$CUDA" != 0 ]; then
    cuda=(--cuda)
elif [ -e /dev/nvidia0 ]; then
    say "there is an NVIDIA GPU here; CUDA=1 (make build CUDA=1) installs what Atelier needs to use it"
fi
wheels=()
case $more in test | form | bench) wheels=("$more") ;; esac
.venv/bin/python scripts/wheels.py "${wheels[@]}" "${cuda[@]}"

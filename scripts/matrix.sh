#!/usr/bin/env bash
# The package beside the versions that pyproject.toml allows: scripts/matrix.sh [ENVIRONMENT...], by default all four.
#
#   lowest  the lowest version of every direct dependency (uv, --resolution lowest-direct)
#   2.8.0   the first nnunetv2 that we take, with the newest of everything else
#   newest  the newest of everything
#   master  nnU-Net's master, with the newest of everything else
#
# Each environment is made anew in a temporary folder (up to 7 GB, removed at the end), and runs doctor, the tests of
# discovery, nnU-Net's attributes and the networks' contract, and one training from end to end. Needs uv; PYTHON says
# which version of Python (3.11). MATRIX_TESTS replaces the tests, for example by MATRIX_TESTS=tests for all.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
default="tests/trainers/test_discovery.py tests/training/test_upstream.py tests/test_networks.py
tests/blocks/test_cross_stage_attention.py tests/trainers/test_end_to_end.py::test_2d[nnUNetTrainerXAttnResUNet]"
read -ra tests -d '' <<< "${MATRIX_TESTS:-$default}" || true

# uv's "lowest" holds for direct dependencies; torchvision, which is timm's, would otherwise bring a newer torch
floor=$(sed -n 's/^    "torch>=\(.*\)",$/\1/p' "$root/pyproject.toml")

requirements() {
    case $1 in
        lowest) echo "--resolution lowest-direct --constraint $work/constraint.txt $root[hdf5]" ;;
        2.8.0) echo "$root[hdf5] nnunetv2==2.8.0" ;;
        newest) echo "$root[hdf5]" ;;
        master) echo "$root[hdf5] nnunetv2@git+https://github.com/MIC-DKFZ/nnUNet" ;;
        *) echo "no environment is called $1; there are lowest, 2.8.0, newest and master" >&2; return 1 ;;
    esac
}

status=0
echo "torch==$floor" > "$work/constraint.txt"
[ $# -gt 0 ] || set -- lowest 2.8.0 newest master
for name in "$@"; do
    what=$(requirements "$name")
    echo "== $name"
    python=$work/$name/bin/python
    # setuptools, which triton of torch 2.6 imports and does not ask for before Python 3.12
    # shellcheck disable=SC2086
    if ! { uv venv --quiet --python "${PYTHON:-3.11}" "$work/$name" &&
        uv pip install --quiet --python "$python" $what &&
        uv pip install --quiet --python "$python" pytest pytest-xdist setuptools; }; then
        echo "$name: could not be installed"
        status=1
        continue
    fi
    cp -r "$root/tests" "$root/pyproject.toml" "$work/"
    uv pip list --quiet --python "$python" 2> /dev/null | grep -E "^(nnunetv2|torch|numpy|timm|scipy) " || true
    (cd "$work" && "$work/$name/bin/nnunet-attn" doctor) || status=1
    (cd "$work" && "$python" -m pytest -q "${tests[@]}") || status=1
    rm -rf "${work:?}/$name" "$work/tests"
done
exit "$status"

# Everything a developer types. CI runs the same recipes (.ci/run).

python := env("PYTHON", ".venv/bin/python")

# Environment with the package (editable), tests and linters
setup:
    python3 -m venv .venv
    {{python}} -m pip install --quiet scikit-build-core nanobind cmake ninja
    {{python}} -m pip install --no-build-isolation --config-settings=cmake.define.PINTPOT_WERROR=ON --editable '.[test,lint]'

# Formatting, lint, types and import rules
check:
    {{python}} -m ruff format --check src tests benchmarks examples
    {{python}} -m ruff check src tests benchmarks examples
    {{python}} -m mypy
    {{python}} -c "from importlinter.cli import lint_imports_command; lint_imports_command()"

# Tests; `just test -m slow` for the long sweeps
test *args:
    {{python}} -m pytest {{args}}

# Native tests under a sanitizer: `just sanitize address`, `just sanitize thread`; pytest's arguments may follow
sanitize kind *args:
    #!/usr/bin/env bash
    set -euo pipefail
    # A build of its own over the packages of {{python}}: nothing is downloaded, and the usual build stays as it is.
    home=build/sanitize-{{kind}}
    {{python}} -m venv --without-pip "$home/venv"
    site=$("$home/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    {{python}} -c 'import sys; print(*(p for p in sys.path if p.endswith("site-packages")), sep="\n")' > "$site/packages.pth"
    {{python}} -m pip --python "$home/venv/bin/python" install --quiet --no-build-isolation --no-deps \
      --config-settings=build-dir="$home/cmake" --config-settings=cmake.define.PINTPOT_SANITIZE={{kind}} .
    case {{kind}} in thread) runtime=libtsan.so ;; *) runtime=libasan.so ;; esac
    # Python itself leaks by design. Nothing but the pool under test starts threads.
    LD_PRELOAD=$(g++ -print-file-name=$runtime) OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
      ASAN_OPTIONS=detect_leaks=0 TSAN_OPTIONS=halt_on_error=1 \
      "$home/venv/bin/python" -m pytest tests/native {{args}}

# Speed beside llama.cpp on the same file (docs/performance.md)
bench *args:
    {{python}} -m benchmarks.compare {{args}}

# The documentation's commands, flags and links exist
docs:
    {{python}} -m pytest tests/cli/test_docs.py

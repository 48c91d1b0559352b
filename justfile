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

# Native tests under sanitizers: `just sanitize address`, `just sanitize thread`
sanitize kinds *args:
    #!/usr/bin/env bash
    set -euo pipefail
    venv=build/sanitize-{{kinds}}
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet '--config-settings=cmake.define.PINTPOT_SANITIZE={{kinds}}' '.[test]'
    case {{kinds}} in *thread*) runtime=libtsan.so ;; *) runtime=libasan.so ;; esac
    # Python itself leaks by design; a worker pool sees no race unless its threads really run.
    LD_PRELOAD=$(g++ -print-file-name=$runtime) ASAN_OPTIONS=detect_leaks=0 TSAN_OPTIONS=halt_on_error=1 \
      "$venv/bin/python" -m pytest tests/native {{args}}

# Speed beside llama.cpp on the same file (docs/performance.md)
bench *args:
    {{python}} -m benchmarks.compare {{args}}

# The documentation's commands, flags and links exist
docs:
    {{python}} -m pytest tests/cli/test_docs.py

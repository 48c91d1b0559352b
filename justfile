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

# Speed beside llama.cpp on the same file (docs/performance.md)
bench *args:
    {{python}} -m benchmarks.compare {{args}}

# The documentation's commands, flags and links exist
docs:
    {{python}} -m pytest tests/cli/test_docs.py

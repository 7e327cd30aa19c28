# The commands of the project. DISTRO=kilted builds a second environment beside the first.
DISTRO ?= jazzy
VENV := $(if $(filter kilted,$(DISTRO)),.venv-kilted,.venv)
PYTHON := $(VENV)/bin/python
PYTEST_WORKERS ?= 2

.PHONY: setup demo test test-kilted scoreboard lint clean

setup:
	@DISTRO=$(DISTRO) scripts/setup.sh

demo: setup
	@$(PYTHON) -m demo.run $(if $(CLIP),--clip "$(CLIP)") --output demo_output

test: setup lint
	$(PYTHON) -m pytest -n $(PYTEST_WORKERS) --dist loadfile

test-kilted:
	@DISTRO=kilted scripts/setup.sh
	.venv-kilted/bin/python -m pytest test/ros/test_smoke.py

scoreboard: setup
	$(PYTHON) -m flow3r_ros.evaluation.scoreboard --clips $(or $(CLIPS),../shared/video demo) \
		$(foreach item,$(CHECKPOINTS),--checkpoint $(item)) $(foreach item,$(BENCHMARKS),--benchmark $(item))
	$(PYTHON) -m flow3r_ros.cli bench --write docs/performance.md
	$(PYTHON) -m flow3r_ros.cli bench --suite corridor --thorough

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

clean:
	rm -rf build install log demo_output .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

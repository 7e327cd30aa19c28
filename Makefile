# The commands of the project.
PYTHON := .venv/bin/python
PYTEST_WORKERS ?= 2

.PHONY: setup browser demo test test-thorough scoreboard lint clean

setup:
	@scripts/setup.sh

# Chromium for the test that looks at the report; without it that test says so and is skipped.
browser:
	@scripts/browser.sh

demo: setup
	@$(PYTHON) -m demo.run $(if $(CLIP),--clip "$(CLIP)") --output demo_output

test: setup browser lint
	$(PYTHON) -m pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder

# What takes long or wants an environment of its own: the real lerobot reads what we write.
test-thorough: setup
	@scripts/lerobot.sh
	$(PYTHON) -m pytest -m thorough

scoreboard: setup
	$(PYTHON) -m flow3r_ros.evaluation.scoreboard --clips $(or $(CLIPS),../shared/video demo) \
		$(foreach item,$(CHECKPOINTS),--checkpoint $(item)) $(foreach item,$(BENCHMARKS),--benchmark $(item))
	$(PYTHON) -m flow3r_ros.cli bench --write docs/performance.md
	$(PYTHON) -m flow3r_ros.cli bench --suite corridor --thorough

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/hadolint docker/Dockerfile
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet

clean:
	rm -rf build install log demo_output .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

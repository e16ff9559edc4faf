# Two commands matter: `make demo` and `make test`. Each sets up what it needs, from a fresh checkout on.
# `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Superset pins other versions of what we use, so it has an environment of its own.
BI_VENV := .venv-bi
BI_INSTALLED := $(BI_VENV)/.installed
# The tools that look at our dependencies have one too, so that they are none of them.
AUDIT_VENV := .venv-audit
AUDIT_INSTALLED := $(AUDIT_VENV)/.installed
# Spark is 450 MB that few need, and its dbt needs no PostgreSQL: it has one too.
SPARK_VENV := .venv-spark
SPARK_INSTALLED := $(SPARK_VENV)/.installed

export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: help install demo advance down destroy status bi bi-down bi-test bi-lock spark spark-test spark-lock mariadb chromium test containers-test chaos drill slim bench lint format lock audit audit-lock sbom clean

help:  ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(INSTALLED)  ## Make the virtual environment, from the lock file

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"error: Python {v[0]}.{v[1]} is not supported. Use 3.11, 3.12 or 3.13: make PYTHON=python3.12")'
	@echo "Installing into $(VENV) (a minute or two, once) …"
	@$(PYTHON) -m venv $(VENV)
# The lock is complete, so there is nothing to resolve; every file is checked against its hash.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(INSTALLED)  ## Start everything, run the pipeline on real data, show what came of it
	@$(BIN)/headwater demo $(if $(CLOCK),--clock $(CLOCK))

advance: $(INSTALLED)  ## Let time pass in the demo (make advance BY=12h), and run the pipeline again
	@$(BIN)/headwater advance $(or $(BY),12h)

down: $(INSTALLED)  ## Stop everything; data stays
	@$(BIN)/headwater down

destroy: $(INSTALLED)  ## Stop everything and delete the local data
	@$(BIN)/headwater destroy --yes

status: $(INSTALLED)  ## How each part of the local stack is
	@$(BIN)/headwater status

bi: $(INSTALLED) $(BI_INSTALLED)  ## Start Superset on the demo's serving schema, with its dashboard
	@$(BIN)/headwater bi up

bi-down: $(INSTALLED)  ## Stop Superset, and nothing else
	@$(BIN)/headwater bi down

bi-test: $(INSTALLED) $(BI_INSTALLED)  ## Test Superset itself, on a demo of its own, in Chromium if it is there
	@$(BIN)/python -m pytest -m bi $(ARGS)

bi-lock: $(INSTALLED)  ## Resolve Superset's lock anew
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command 'make bi-lock' --upgrade --output-file deployments/bi/requirements.lock \
		deployments/bi/requirements.in

$(BI_INSTALLED): deployments/bi/requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v in ((3, 11), (3, 12)) else f"error: Superset does not run on Python {v[0]}.{v[1]}. Use 3.11 or 3.12: make bi PYTHON=python3.12")'
	@echo "Installing Superset into $(BI_VENV) (800 MB, a few minutes, once) …"
	@$(PYTHON) -m venv $(BI_VENV)
	@$(BI_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r deployments/bi/requirements.lock
	@touch $@

spark: $(INSTALLED) $(SPARK_INSTALLED)  ## Install Spark and its dbt, to build the marts there (headwater spark build)

spark-test: $(INSTALLED) $(SPARK_INSTALLED)  ## Build the same marts on Spark as on PostgreSQL, and compare them; needs Java 17
	@$(BIN)/python -m pytest -m "spark and not chaos" $(ARGS)

spark-lock: $(INSTALLED)  ## Resolve Spark's lock anew
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command 'make spark-lock' --upgrade --output-file deployments/spark/requirements.lock \
		deployments/spark/requirements.in

$(SPARK_INSTALLED): deployments/spark/requirements.lock
	@echo "Installing Spark into $(SPARK_VENV) (650 MB, a few minutes, once) …"
	@$(PYTHON) -m venv $(SPARK_VENV)
# Spark comes as source alone; building it takes no more than copying.
	@$(SPARK_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r deployments/spark/requirements.lock
	@touch $@

mariadb: $(INSTALLED)  ## Unpack a MariaDB server for the tests, where apt-get can get one
	@tests/install_mariadb.sh $(VENV)/mariadb

chromium: $(INSTALLED)  ## Unpack a browser for the tests, where apt-get can get one
	@tests/install_chromium.sh $(VENV)/chromium

test: $(INSTALLED) lint mariadb chromium  ## Check and test everything
# More at a time than there are cores: half of their time they wait. What takes longest begins (tests/scheduling.py).
	@$(BIN)/python -m pytest -m 'not chaos and not bi and not containers and not spark' -n 3 --no-loadscope-reorder $(ARGS)

containers-test: $(INSTALLED)  ## Build the image and run all of compose.yaml, as root, where apt-get can get podman
	@$(BIN)/python -m pytest -m containers $(ARGS)

chaos: $(INSTALLED)  ## Kill, stop and cut, for long
	@$(BIN)/python -m pytest -m 'chaos and not spark' -n 2 --no-loadscope-reorder $(ARGS)

drill: $(INSTALLED)  ## Lose the demo's warehouse, and make it anew from its backup and the landing
	@$(BIN)/python -m pytest -m chaos tests/test_drill.py $(ARGS)

slim: $(INSTALLED)  ## Build what differs in dbt/ from the last transform, and what depends on it, beside the real schemas (PREFIX=me)
# What it needs and does not build is read where the last transform built it; STATE names another manifest's folder.
	@. "$(or $(HEADWATER_HOME),.headwater)/env" && cd dbt && HEADWATER_SCHEMA_PREFIX=$(or $(PREFIX),me) dbt build \
		--select state:modified+ --defer --favor-state --state "$(or $(STATE),$$HEADWATER_DBT_TARGET)" --target-path target/slim

bench: $(INSTALLED)  ## Measure speed and memory, each beside a limit of the same run
	@$(BIN)/python -m bench $(ARGS)

lint: $(INSTALLED)  ## Style, types, layers, SQL
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/sqlfluff lint --disable-progress-bar dbt/models dbt/tests dbt/macros dbt/packages

format: $(INSTALLED)  ## Bring code into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: $(INSTALLED)  ## Resolve requirements.lock anew from pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --all-extras --no-annotate \
		--custom-compile-command 'make lock' --upgrade --output-file requirements.lock pyproject.toml
# What the image installs is part of it, in the same versions.
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.13 --generate-hashes --no-annotate \
		--extra mysql --extra openlineage --extra docker --extra kubernetes --constraint requirements.lock \
		--custom-compile-command 'make lock' --output-file deployments/containers/requirements.lock \
		pyproject.toml deployments/containers/requirements.in
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.13 --generate-hashes --no-annotate --no-deps \
		--constraint requirements.lock --custom-compile-command 'make lock' \
		--output-file deployments/containers/demo.lock deployments/containers/demo.in

sbom: $(AUDIT_INSTALLED)  ## Write what we depend on as CycloneDX (build/sbom.cdx.json, and Superset's)
	@mkdir -p build
	@$(AUDIT_VENV)/bin/cyclonedx-py requirements --output-reproducible --pyproject pyproject.toml --output-file build/sbom.cdx.json requirements.lock
	@$(AUDIT_VENV)/bin/cyclonedx-py requirements --output-reproducible --output-file build/sbom-bi.cdx.json deployments/bi/requirements.lock
	@echo "build/sbom.cdx.json, build/sbom-bi.cdx.json"

audit: $(AUDIT_INSTALLED)  ## Ask whether a dependency has a known vulnerability (needs the internet)
	@$(AUDIT_VENV)/bin/pip-audit --disable-pip --require-hashes --progress-spinner off --requirement requirements.lock $(ARGS)
	@$(AUDIT_VENV)/bin/pip-audit --disable-pip --require-hashes --progress-spinner off --requirement deployments/bi/requirements.lock $(ARGS)

audit-lock: $(INSTALLED)  ## Resolve the lock of the audit's tools anew
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command 'make audit-lock' --upgrade --output-file .ci/audit.lock .ci/audit.in

$(AUDIT_INSTALLED): .ci/audit.lock
	@$(PYTHON) -m venv $(AUDIT_VENV)
	@$(AUDIT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r .ci/audit.lock
	@touch $@

clean: down  ## Stop everything and remove the virtual environment
	@rm -rf $(VENV) $(BI_VENV) $(AUDIT_VENV) $(SPARK_VENV) build

